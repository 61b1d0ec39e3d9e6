import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.chunk cimport Chunk, ChunkQueue
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.replayed cimport Replayed

cdef long long _MASK
cdef long long _INITIAL_RTO
cdef long long _MIN_RTO
cdef long long _MAX_RTO
cdef long long _PING_PONG
cdef int _MAX_RANGES
cdef int _ACK
cdef int _PSH
cdef int _FIN
cdef bytes _NOTHING
cdef long long _HUGE
cdef int _MOST_SEGMENTS

cdef class SendHalf(Replayed):
    cdef public long long ack_deadline_ns
    cdef public long long ack_pending_bytes
    cdef public bytes address
    cdef public Context context
    cdef public Chunk cursor
    cdef public long long cwnd
    cdef public long long fin_offset
    cdef public ChunkQueue queue
    cdef public long long recover
    cdef public long long retransmit_next
    cdef public long long rto_deadline_ns
    cdef public long long rto_ns
    cdef public long long rtt_offset
    cdef public long long rtt_started_ns
    cdef public long long rttvar_ns
    cdef public list sacked
    cdef public long long snd_nxt
    cdef public long long snd_una
    cdef public long long srtt_ns
    cdef public long long ssthresh
    cdef public bytes target_address
    cdef public int backoff
    cdef public int duplicate_acks
    cdef public unsigned int irs
    cdef public unsigned int iss
    cdef public int mss
    cdef public unsigned int snd_wnd
    cdef public unsigned int timestamp_recent
    cdef public unsigned short port
    cdef public unsigned short target_port
    cdef public unsigned char ping_pong
    cdef public unsigned char probing
    cdef public unsigned char recovering_by_timer
    cdef public unsigned char sack_permitted
    cdef public unsigned char snd_wscale
    cdef public unsigned char timestamps

    cdef void set_up_sender(
        self,
        Context context,
        ChunkQueue queue,
        bytes address,
        int port,
        bytes target_address,
        int target_port,
    ) except *
    cpdef int receive_window(self) except -1
    @cython.locals(context=Context, acknowledge=cython.longlong, cut=cython.Py_ssize_t)
    cpdef int emit(
        self,
        long long offset,
        int segment_flags,
        bytes options,
        bytes data,
        Py_ssize_t data_at,
        Py_ssize_t length,
        long long now_ns,
    ) except -1
    @cython.locals(last=cython.bint)
    cpdef int emit_data(
        self, Chunk chunk, long long offset, long long length, long long now_ns
    ) except -1
    @cython.locals(
        queue=ChunkQueue,
        window_end=cython.longlong,
        congestion_end=cython.longlong,
        limit=cython.longlong,
        chunk=Chunk,
        length=cython.longlong,
    )
    cpdef int send_new(self, long long now_ns) except -1
    @cython.locals(most=cython.longlong)
    cdef long long _several(self, long long length, long long room) except -1
    cpdef int window_update(self, long long window) except -1
    cpdef int take_ack(self, long long offset, bint is_duplicate, long long now_ns) except -1
    @cython.locals(acknowledged=cython.longlong, data_end=cython.longlong)
    cdef void _advance(self, long long offset, long long now_ns) except *
    @cython.locals(error=cython.longlong, rto=cython.longlong)
    cdef void _sample(self, long long rtt_ns) noexcept
    @cython.locals(needed=cython.longlong, in_flight=cython.longlong)
    cdef bint _is_lost(self) except *
    @cython.locals(in_flight=cython.longlong)
    cdef void _enter_recovery(self, bint by_timer, long long now_ns) except *
    @cython.locals(offset=cython.longlong)
    cdef void _retransmit_some(self, int count, long long now_ns) except *
    @cython.locals(chunk=Chunk, length=cython.longlong)
    cdef long long _retransmit_at(self, long long offset, long long now_ns) except -1
    @cython.locals(wait=cython.longlong)
    cpdef int retransmission_timeout(self, long long now_ns) except -1
    @cython.locals(chunk=Chunk)
    cdef void _probe(self, long long now_ns) except *
    @cython.locals(left=cython.longlong, right=cython.longlong, news=cython.int)
    cpdef int take_sack(self, long long start, long long end) except -1
    @cython.locals(una=cython.longlong)
    cdef void _trim_sacked(self) except *
    @cython.locals(total=cython.longlong, start=cython.longlong, end=cython.longlong)
    cdef long long _sacked_bytes(self) except -1
    cdef long long _sacked_top(self) except -1
    @cython.locals(start=cython.longlong, end=cython.longlong)
    cdef long long _skip_sacked(self, long long offset) except -1
