import cython

from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.pauses cimport Pauses
from tcpcopy.packet.batch cimport PacketBatch

cdef class Context:
    cdef public long long answer_timeout_ns
    cdef public long long answer_usual_ns
    cdef public PacketBatch batch
    cdef public long long capture_ns
    cdef public long long close_timeout_ns
    cdef public long long connect_timeout_ns
    cdef public Counts counts
    cdef public long long hole_look_ns
    cdef public long long hole_timeout_ns
    cdef public long long idle_look_ns
    cdef public long long idle_timeout_ns
    cdef public long long linger_ns
    cdef public int mss
    cdef public int mtu
    cdef public bint paced
    cdef public Pauses pauses
    cdef public bint recorded
    cdef public long long remember_ns
    cdef public long long resumed_ns
    cdef public bint resumes
    cdef public long long rtt_ns
    cdef public long long seed
    cdef public double speed
    cdef public long long stood_still_ns
    cdef public object turn_rate
    cdef public long long wait_factor
    cdef public bint wait_for_answers

    cpdef int note_answer_time(self, long long nanoseconds) except -1
    cpdef void stand_still(self, long long now_ns, long long duration_ns) noexcept
    @cython.locals(bound_ns=cython.longlong)
    cpdef long long connect_ends_ns(self, long long deadline_ns) noexcept
    cpdef long long rate_clock_ns(self, long long now_ns) noexcept
