cdef class Replayed:
    cdef public long long acknowledged
    cdef public long long acknowledged_ns
    cdef public long long last_receive_ns
    cdef public long long received
    cdef public unsigned char coarse
    cdef public unsigned char ended
    cdef public unsigned char established
    cdef public unsigned char fin_acknowledged
    cdef public unsigned char looks
    cdef public unsigned char pushed
    cdef public unsigned char said
    cdef public unsigned char target_closed

    cdef void set_up_replayed(self) except *
    cpdef int open(self, long long now_ns) except -1
    cpdef int begin_at(self, long long offset) except -1
    cpdef int connect_by(self, long long deadline_ns) except -1
    cpdef int transmit(self, long long now_ns) except -1
    cpdef int abort(self, long long now_ns) except -1
    cpdef int run_timers(self, long long now_ns) except -1
    cpdef long long deadline_ns(self) except -1
    cpdef int undelivered(self) except -1
    cpdef int linger(self, long long now_ns) except -1
