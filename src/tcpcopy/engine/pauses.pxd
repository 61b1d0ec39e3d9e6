cdef long long _ONE
cdef long long _FIRST
cdef int _SHIFT
cdef long long _LIMIT

cdef class Pauses:
    cdef public long long share

    cpdef int note(self, int paused) except -1
    cpdef bint are_rare(self) except -1
