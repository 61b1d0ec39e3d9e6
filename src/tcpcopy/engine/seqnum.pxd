import cython

cdef long long _MASK
cdef long long _HALF
cdef long long _WHOLE

cpdef long long add(long long number, long long count) noexcept
@cython.locals(ahead=cython.longlong, wrap=cython.longlong)
cpdef long long difference(long long left, long long right) noexcept
