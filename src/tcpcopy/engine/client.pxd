import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.chunk cimport ChunkQueue
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.receiver cimport ReceiveHalf
from tcpcopy.engine.syn cimport initial_number, syn_options
from tcpcopy.packet.segment cimport Segment

cdef long long _MASK
cdef int _SYN_SENT
cdef int _ESTABLISHED
cdef int _FIN_WAIT_1
cdef int _FIN_WAIT_2
cdef int _CLOSING
cdef int _TIME_WAIT
cdef int _CLOSE_WAIT
cdef int _LAST_ACK
cdef int _CLOSED
cdef bytes _ALLOWED

cdef int _RUNNING
cdef int _ENDED_CLOSED
cdef int _ENDED_REFUSED
cdef int _ENDED_RESET
cdef int _ENDED_RESET_AT_END
cdef int _ENDED_RESET_SENT
cdef int _ENDED_CONNECT_TIMEOUT
cdef int _ENDED_ANSWER_TIMEOUT

cdef int _USED
cdef int _BAD_STATE
cdef int _BAD_ACK
cdef int _OUT_OF_WINDOW
cdef int _DUPLICATE

cdef int _FIN
cdef int _SYN
cdef int _RST
cdef int _PSH
cdef int _ACK
cdef bytes _NOTHING
cdef long long _WINDOW
cdef long long _CHALLENGE_GAP
cdef unsigned char _RST_REPEATS
cdef long long _RST_GAP

cdef class TcpClient(ReceiveHalf):
    cdef public long long challenge_ns
    cdef public long long progress_ns
    cdef public long long rst_deadline_ns
    cdef public long long state_deadline_ns
    cdef public int state
    cdef public unsigned short syn_mss
    cdef public unsigned short syn_window
    cdef public unsigned char again
    cdef public unsigned char rst_repeats
    cdef public unsigned char syn_sack
    cdef public unsigned char syn_timestamps
    cdef public signed char syn_wscale

    cdef void set_up_client(
        self,
        Context context,
        ChunkQueue queue,
        bytes address,
        int port,
        bytes target_address,
        int target_port,
    ) except *
    cdef void _set_state(self, int state) except *
    @cython.locals(first=cython.longlong, ports=cython.uint, seed=cython.longlong)
    cpdef int open(self, long long now_ns) except -1
    cpdef int begin_at(self, long long offset) except -1
    cpdef int connect_by(self, long long deadline_ns) except -1
    cpdef int come_after(self, TcpClient before) except -1
    cdef void _send_syn(self, long long now_ns) except *
    @cython.locals(segment_flags=cython.int, acceptable=cython.bint, number=cython.longlong)
    cdef int _take_in_syn_sent(self, Segment segment, long long now_ns) except -1
    @cython.locals(both=cython.bint, peer_mss=cython.int, headers=cython.int)
    cdef void _establish(self, Segment segment, long long now_ns) except *
    @cython.locals(received=cython.longlong)
    cpdef long long server_offset(self, long long seq) except? -1
    @cython.locals(
        segment_flags=cython.int,
        received=cython.longlong,
        offset=cython.longlong,
        una=cython.longlong,
        ack=cython.longlong,
        length=cython.longlong,
        is_fin=cython.bint,
    )
    cpdef int take_segment(self, Segment segment, long long now_ns) except -1
    @cython.locals(window=cython.longlong, news=cython.int, duplicate=cython.bint)
    cdef void _take_acknowledgement(
        self, Segment segment, long long ack, bint pure, long long now_ns
    ) except *
    @cython.locals(base=cython.longlong, una=cython.longlong, news=cython.int)
    cdef int _take_sacks(self, Segment segment) except -1
    @cython.locals(was_closed=cython.bint)
    cdef void _take_data(
        self, long long offset, long long length, bint is_fin, bint pushed, long long now_ns
    ) except *
    @cython.locals(oldest=cython.longlong, una=cython.longlong, ack=cython.longlong)
    cdef int _take_rst(self, Segment segment, long long offset, long long now_ns) except -1
    cdef bint _data_is_taken(self) noexcept
    cdef void _challenge(self, long long now_ns) except *
    cdef int _take_when_closed(self, Segment segment, long long now_ns) except -1
    @cython.locals(queue=ChunkQueue)
    cpdef int transmit(self, long long now_ns) except -1
    cdef void _send_rst(self, long long now_ns) except *
    cdef void _send_bare_rst(self, long long seq) except *
    cdef void _end(self, int how) except *
    @cython.locals(earliest=cython.longlong)
    cpdef long long deadline_ns(self) except -1
    cdef void _retransmit(self, long long now_ns) except *
    cdef void _repeat_rst(self, long long now_ns) except *
