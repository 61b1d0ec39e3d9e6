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
cdef int _BEHIND_HOLE
cdef long long _FAR
cdef int _DOUBTS
cdef int _FAR_SIGNS
cdef int _NONE
cdef int _DATA
cdef int _FIN
cdef int _RST

cdef class Signs:
    cdef public long long offset
    cdef public long long rst_offset
    cdef public long long urgent_offset
    cdef public int doubts
    cdef public int far
    cdef public int shift

    cpdef bint is_open(self, long long rcv) noexcept
    cpdef bint is_idle(self, long long rcv) noexcept

cdef class CapturedHalf(ChunkQueue):
    cdef public long long captured_fin_offset
    cdef public long long captured_rcv_offset
    cdef public list early
    cdef public long long early_bytes
    cdef public long long last_captured_ns
    cdef public long long server_base
    cdef public long long server_seen
    cdef public Signs signs
    cdef public long long stuck_since_ns
    cdef public unsigned int captured_isn
    cdef public unsigned char captured_end
    cdef public unsigned char torn

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
    @cython.locals(rcv=cython.longlong, ahead=cython.longlong, signs=Signs)
    cpdef int take_ack(self, long long seq, long long ack, long long now_ns) except -1
    @cython.locals(rcv=cython.longlong, offset=cython.longlong)
    cpdef int take_fin(self, long long seq_after_data, long long ack, long long now_ns) except -1
    cpdef int close_captured(self, long long now_ns) except -1
    @cython.locals(rcv=cython.longlong, ahead=cython.longlong, signs=Signs)
    cpdef int take_rst(self, long long seq, long long ack, long long now_ns) except -1
    @cython.locals(rcv=cython.longlong, ahead=cython.longlong)
    cpdef int take_urgent(self, long long seq) except -1
    cpdef int note_urgent(self) except -1
    @cython.locals(freed=cython.longlong, signs=Signs, was_reset=cython.bint)
    cpdef long long tear_captured(self, long long now_ns) except -1
    @cython.locals(tail=Chunk, rcv=cython.longlong)
    cdef void _accept(
        self, bytes data, long long server_offset, long long now_ns
    ) except *
    @cython.locals(signs=Signs, at=cython.longlong)
    cdef bytes _without_urgent(self, bytes data)
    cdef void _end_if_complete(self, long long now_ns) except *
    cdef void _end_with_rst(self, long long now_ns) except *
    cdef Signs _make_signs(self)
    cdef void _wait_for_gap(self, long long now_ns) noexcept
    cdef int _is_far(self, long long now_ns) except -1
    @cython.locals(signs=Signs, rcv=cython.longlong)
    cdef void _doubt(self, bint has_gone_on) except *
    @cython.locals(signs=Signs, rcv=cython.longlong, is_open=cython.bint)
    cdef void _see_what_waits(self, long long now_ns) except *
    cdef void _forget_what_waits(self) except *
    @cython.locals(early=list, at=cython.Py_ssize_t)
    cdef int _hold(
        self, long long offset, bytes data, long long server_offset, long long now_ns
    ) except -1
    @cython.locals(signs=Signs)
    cdef void _take_early(self, long long now_ns) except *
    @cython.locals(
        early=list,
        taken=cython.Py_ssize_t,
        rcv=cython.longlong,
        offset=cython.longlong,
        data=bytes,
        signs=Signs,
        shift=cython.longlong,
        goes_on=cython.bint,
    )
    cdef bint _take_some_early(self, long long now_ns) except -1
