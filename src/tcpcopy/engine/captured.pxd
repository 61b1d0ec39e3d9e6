import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.chunk cimport Chunk, ChunkQueue, make_chunk

cdef long long _MASK
cdef int _USED
cdef int _DUPLICATE
cdef int _OUT_OF_WINDOW
cdef int _EARLY_LIMIT
cdef int _CLOSED
cdef long long _EARLY_BYTES
cdef Py_ssize_t _EARLY_SEGMENTS
cdef long long _FARTHEST
cdef int _DATA
cdef int _FIN
cdef int _RST

cdef class CapturedHalf(ChunkQueue):
    cdef public long long captured_fin_offset
    cdef public long long captured_rcv_offset
    cdef public list early
    cdef public long long early_bytes
    cdef public long long last_captured_ns
    cdef public long long server_base
    cdef public long long server_seen
    cdef public long long stuck_since_ns
    cdef public int captured_end
    cdef public unsigned int captured_isn

    cdef void set_up_captured(self) except *
    @cython.locals(ahead=cython.longlong)
    cpdef long long acknowledged_by_client(self, long long ack) except -1
    cpdef int take_syn_data(self, bytes data, long long now_ns) except -1
    @cython.locals(
        rcv=cython.longlong,
        isn=cython.longlong,
        offset=cython.longlong,
        end=cython.longlong,
        server_offset=cython.longlong,
    )
    cpdef int take_data(self, long long seq, long long ack, bytes data, long long now_ns) except -1
    @cython.locals(rcv=cython.longlong, offset=cython.longlong)
    cpdef int take_fin(self, long long seq_after_data, long long ack, long long now_ns) except -1
    @cython.locals(rcv=cython.longlong, ahead=cython.longlong)
    cpdef int close_captured(self, long long now_ns) except -1
    cpdef int take_rst(self, long long seq, long long ack, long long now_ns) except -1
    @cython.locals(tail=Chunk, rcv=cython.longlong)
    cdef void _accept(
        self, bytes data, long long server_offset, long long now_ns
    ) except *
    cdef void _end_if_complete(self, long long now_ns) except *
    @cython.locals(early=list, at=cython.Py_ssize_t)
    cdef int _hold(
        self, long long offset, bytes data, long long server_offset, long long now_ns
    ) except -1
    @cython.locals(
        early=list, taken=cython.Py_ssize_t, rcv=cython.longlong, offset=cython.longlong, data=bytes
    )
    cdef void _take_early(self, long long now_ns) except *
