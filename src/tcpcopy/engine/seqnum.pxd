import cython

cpdef long long add(long long number, long long count) noexcept
@cython.locals(ahead=cython.longlong, wrap=cython.longlong)
cpdef long long difference(long long left, long long right) noexcept
