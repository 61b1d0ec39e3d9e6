import cython

cdef long long _MOST_UNITS
cdef long long _MASK

cdef class Ended:
    cdef public dict names
    cdef public dict names_before
    cdef public long long turned_ns

    @cython.locals(units=cython.longlong)
    cpdef int add(self, object name, long long reason, long long isn, long long size=*) except -1
    cpdef long long size(self, long long found) noexcept
    @cython.locals(found=cython.longlong)
    cpdef long long find(self, object name) except -1
    @cython.locals(found=cython.longlong)
    cpdef bint knows(self, object name, long long isn) except -1
    cpdef int forget(self, object name) except -1
    cpdef int forget_all(self) except -1
    cpdef int turn(self, long long now_ns, long long after_ns) except -1
