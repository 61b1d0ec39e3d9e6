import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.captured cimport CapturedHalf
from tcpcopy.engine.context cimport Context
from tcpcopy.packet.segment cimport Segment

cdef long long _RTT_FLOOR
cdef long long _MAX_RTT
cdef long long _ECHO_FLOOR
cdef long long _TICK

cdef class MeasuredHalf(CapturedHalf):
    cdef public Context context
    cdef public long long echo_from_ns
    cdef public long long rtt_ns
    cdef public long long syn_ns
    cdef public unsigned int client_rtt_ns
    cdef public unsigned int echo_from

    cdef void set_up_measured(self, Context context) except *
    cpdef bint wants_options(self) except -1
    @cython.locals(as_captured=cython.longlong, known=cython.bint)
    cpdef int note_handshake(self, Segment segment, long long captured_ns) except -1
    @cython.locals(ticks=cython.longlong, sample=cython.longlong)
    cpdef int note_echo(self, Segment segment, long long captured_ns) except -1
    cpdef int note_reaction(self, long long gap_ns) except -1
    cdef long long _as_captured(self, long long nanoseconds) noexcept
    cdef void _put_back(self, long long rtt_ns) noexcept
