cdef class Replayed:
    cdef public long long acknowledged
    cdef public bint coarse
    cdef public int ended
    cdef public bint established
    cdef public bint fin_acknowledged
    cdef public long long last_receive_ns
    cdef public bint pushed
    cdef public long long received
    cdef public bint target_closed

    cpdef int open(self, long long now_ns) except -1
    cpdef int transmit(self, long long now_ns) except -1
    cpdef int abort(self, long long now_ns) except -1
    cpdef int run_timers(self, long long now_ns) except -1
    cpdef long long deadline_ns(self) except -1
    cpdef int undelivered(self) except -1
    cpdef int linger(self, long long now_ns) except -1
