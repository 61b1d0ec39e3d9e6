import cython

from tcpcopy.report.histogram cimport Histogram
from tcpcopy.said.tally cimport Tally

cdef int _INCOMPLETE

cdef class Counts:
    cdef public long long answer_bytes
    cdef long long[::1] answer_drops
    cdef public long long begun_at_accept
    cdef public long long busy
    cdef public long long bytes_captured
    cdef public long long bytes_delivered
    cdef public Histogram answer_time
    cdef long long[::1] capture_drops
    cdef public Histogram capture_lag
    cdef public long long client_first
    cdef public long long connects_retried
    cdef public long long established
    cdef public long long far
    cdef public long long packets_answered
    cdef public long long packets_captured
    cdef public long long peak
    cdef public long long turns_late
    cdef public long long live
    cdef long long[::1] outcomes
    cdef public long long picked_up
    cdef public long long queued_bytes
    cdef public long long retransmitted
    cdef public long long retry_waited
    cdef public long long retry_waiting
    cdef public dict said
    cdef public long long segments_sent
    cdef public long long server_first
    cdef public long long sessions
    cdef public long long sessions_resumed
    cdef public long long turns_captured
    cdef public long long turns_missed
    cdef public long long turns_replayed
    cdef public long long urgent
    cdef public long long waiting
    cdef public long long waits_expired

    @cython.locals(tally=Tally)
    cpdef Tally tally(self, bytes address, int port)
    cdef void count_established(self) noexcept
    cpdef long long begun(self) noexcept
    cpdef void count_outcome(self, int outcome) except *
