import cython

cdef int _RATE
cdef int _QUIET_RATE
cdef int _QUIET
cdef int _BLIND
cdef int _BLIND_RATE
cdef int _KEPT

cdef class FloodWatch:
    cdef public long long attempts
    cdef long long[::1] begun
    cdef public long long blind_until_ns
    cdef long long[::1] done
    cdef public bint flooding
    cdef public long long peak
    cdef public long long quiet
    cdef public long long rate
    cdef public long long second
    cdef public long long second_ns
    cdef public long long streak
    cdef public long long streak_attempts

    @cython.locals(second=cython.longlong)
    cpdef int begin(self, long long syn_ns) except -1
    @cython.locals(second=cython.longlong)
    cpdef int complete(self, long long syn_ns, long long now_ns) except -1
    @cython.locals(second=cython.longlong)
    cpdef int look(self, long long now_ns) except -1
    cpdef int stop(self) except -1
    cpdef bint is_calm(self) noexcept
    cdef void _go_to(self, long long second) except *
    cdef void _next(self) except *
    @cython.locals(place=cython.longlong, left=cython.longlong, is_blind=cython.bint)
    cdef void _judge(self, long long second) except *
