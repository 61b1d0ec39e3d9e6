import cython

from tcpcopy.packet.frame cimport Frame
from tcpcopy.packet.links cimport read16
from tcpcopy.packet.tunnels cimport is_tunnel_port, is_tunnel_protocol, one_tunnel

cdef int _MOST_TUNNELS
cdef int _DEEP
cdef int _MOST_STEPS
cdef int _TCP
cdef int _UDP
cdef int _AUTHENTICATION
cdef int _FRAGMENT

cdef class Unwrapper:
    cdef public Py_ssize_t end
    cdef public long long fragments
    cdef public Frame frame
    cdef public long long joined
    cdef public long long lost
    cdef public object reassembler
    cdef public Py_ssize_t start
    cdef public bint strips_tunnels
    cdef public long long tunnelled
    cdef public list unread
    cdef public bytes whole
    cdef public Py_ssize_t wire_length

    cpdef void begin(self, unsigned long long network) noexcept
    cpdef void note_unread(self) except *
    cpdef bint take(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long now_ns,
    ) except -1
    @cython.locals(
        frame=Frame, tunnels=cython.int, _=cython.int, protocol=cython.int, whole=bytes,
        inside=cython.Py_ssize_t, wire_end=cython.Py_ssize_t
    )
    cdef bint _take_other(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long now_ns,
    ) except -1
    @cython.locals(at=cython.Py_ssize_t)
    cdef bint _wants(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int protocol
    ) except -1
    cdef bytes _join(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, long long now_ns
    )
    @cython.locals(lost=cython.longlong)
    cpdef void count_lost(self) except *

@cython.locals(is_piece=cython.int)
cpdef bint is_plain_tcp(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
) noexcept
cdef int fragment_of(const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end) noexcept
@cython.locals(size=cython.Py_ssize_t, at=cython.Py_ssize_t)
cdef Py_ssize_t first_fragment_payload(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
) noexcept
@cython.locals(following=cython.int, at=cython.Py_ssize_t, _=cython.int)
cdef Py_ssize_t _fragment_header(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
) noexcept
