import cython

cdef int _NOT_IP
cdef int _SHORT
cdef int _UNKNOWN_LINK
cdef int _MOST_TAGS
cdef int _MOST_LABELS
cdef int _MOST_EXTENSIONS
cdef int _MOST_TUNNELS
cdef int _VXLAN_PORT
cdef int _VXLAN_PORT_LINUX

@cython.locals(number=cython.int)
cdef int _read16(const unsigned char[::1] data, Py_ssize_t at) noexcept
cpdef Py_ssize_t network_offset(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int link_type
) noexcept
@cython.locals(version=cython.int)
cdef Py_ssize_t _ip(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(tags=cython.int)
cdef Py_ssize_t _typed(
    const unsigned char[::1] data, int kind, Py_ssize_t at, Py_ssize_t end
) noexcept
cdef bint _is_snap(const unsigned char[::1] data, Py_ssize_t at) noexcept
@cython.locals(protocol=cython.int)
cdef Py_ssize_t _ppp(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(labels=cython.int, is_last=cython.int)
cdef Py_ssize_t _labelled(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(family=cython.int)
cdef Py_ssize_t _loopback(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(at=cython.Py_ssize_t, inside=cython.Py_ssize_t, tunnels=cython.int)
cpdef Py_ssize_t inner_packet(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
) noexcept
@cython.locals(
    version=cython.int, at=cython.Py_ssize_t, outer_end=cython.Py_ssize_t, protocol=cython.int,
    extensions=cython.int, inside=cython.Py_ssize_t
)
cpdef Py_ssize_t one_tunnel(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
) noexcept
@cython.locals(flags=cython.int, kind=cython.int)
cdef Py_ssize_t _gre(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(port=cython.int)
cdef Py_ssize_t _vxlan(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(header=cython.Py_ssize_t, total=cython.Py_ssize_t)
cdef bint _fits(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t outer_end
) noexcept
