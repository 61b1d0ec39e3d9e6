import cython

cdef int _NOT_IP
cdef int _SHORT
cdef int _BAD_HEADER
cdef int _FRAGMENT
cdef int _NOT_TCP


@cython.locals(
    network=cython.Py_ssize_t,
    tcp=cython.Py_ssize_t,
    transport=cython.Py_ssize_t,
    total=cython.Py_ssize_t,
)
cpdef int check_v4(const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end) noexcept
@cython.locals(transport=cython.Py_ssize_t, total=cython.Py_ssize_t)
cpdef int check_v6(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t wire_length
) noexcept
@cython.locals(high=cython.longlong, low=cython.longlong)
cpdef long long read32(const unsigned char[::1] data, Py_ssize_t at) noexcept
