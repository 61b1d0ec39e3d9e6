import cython

cdef int _FIRST_SIZE
cdef unsigned long long _WIDE_MASK
cdef unsigned long long _MULTIPLIER
cdef unsigned long long _MULTIPLIER_2

@cython.locals(mixed=cython.ulonglong, hashed=cython.ulonglong)
cpdef unsigned long long mix(
    unsigned long long wide, unsigned long long narrow, unsigned long long seed
) noexcept

cdef class Places:
    cdef unsigned int[::1] hashes
    cdef public unsigned long long mask
    cdef public unsigned long long used

    cdef unsigned long long take(self, unsigned long long hashed) except? 1
    @cython.locals(
        hashes="unsigned int[::1]", mask=cython.ulonglong, after=cython.ulonglong
    )
    cdef void drop(self, unsigned long long place) except *
    @cython.locals(hashes="unsigned int[::1]", place=cython.ulonglong)
    cdef unsigned long long _enter(self, unsigned long long hashed) except? 1
    @cython.locals(
        hashes="unsigned int[::1]", count=cython.ulonglong, place=cython.ulonglong
    )
    cdef void _grow(self) except *
    cdef void move(self, unsigned long long place, unsigned long long to) except *
    cdef void clear(self, unsigned long long place) except *
    cdef void begin_move(self, unsigned long long size) except *
    cdef void carry(self, unsigned long long place, unsigned long long to) except *
    cdef void end_move(self) except *
