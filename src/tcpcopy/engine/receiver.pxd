import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.chunk cimport ChunkQueue
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.sender cimport SendHalf

cdef long long _ACK_DELAY
cdef long long _DELAYED_ACK
cdef long long _DELAYED_ACK_GRID
cdef int _MAX_EARLY
cdef long long _WINDOW
cdef int _ACK
cdef bytes _NOTHING

cdef class ReceiveHalf(SendHalf):
    cdef public list early
    cdef public long long early_newest
    cdef public long long later_ack_ns
    cdef public long long rtt_ns
    cdef public long long target_fin
    cdef public unsigned char ack_now
    cdef public unsigned char rcv_wscale

    cdef void set_up_receiver(self) except *
    @cython.locals(end=cython.longlong)
    cpdef int take_payload(
        self, long long offset, long long length, bint is_fin, bint pushed, long long now_ns
    ) except -1
    cdef bint _is_in_window(self, long long offset) noexcept
    @cython.locals(gained=cython.longlong)
    cdef void _receive_to(self, long long end) noexcept
    cdef void _hold(self, long long start, long long end) except *
    cdef void _take_early(self) except *
    @cython.locals(due=cython.longlong)
    cpdef int schedule_ack(self, long long now_ns) except -1
    cpdef int send_ack(self, long long now_ns) except -1
    @cython.locals(later=cython.longlong)
    cpdef int ack_due(self, long long now_ns) except -1
    @cython.locals(newest=cython.longlong)
    cdef bytes _sack_option(self)
