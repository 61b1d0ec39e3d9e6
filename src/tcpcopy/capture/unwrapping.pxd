import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport Segment, copy_bytes, parse, parse_udp
from tcpcopy.packet.unwrap cimport Unwrapper, is_plain_tcp

cdef int _PARSED
cdef int _NOT_TCP
cdef int _FRAGMENT

cdef class Unwrapping(PacketHandler):
    cdef object _matches
    cdef unsigned char[::1] _ports
    cdef Segment _segment
    cdef public PacketHandler handler
    cdef public long long kept
    cdef public long long left_out
    cdef public unsigned long long network
    cdef public Unwrapper unwrapper

    @cython.locals(found=Unwrapper)
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(result=cython.int)
    cdef int _hand_on(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
        unsigned long long network,
    ) except -1
    @cython.locals(found=Unwrapper, status=cython.int)
    cdef bint _is_wanted(self, const unsigned char[::1] data) except -1
