import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport Segment, copy_bytes, parse

cdef int _PARSED
cdef int _NOT_IP
cdef int _NOT_TCP
cdef int _FRAGMENT

cdef class Feed(PacketHandler):
    cdef object _accepts
    cdef unsigned long long _held_network
    cdef Py_ssize_t _length
    cdef unsigned long long _network
    cdef bytes _packet
    cdef unsigned char[::1] _ports
    cdef Segment _segment
    cdef Py_ssize_t _wire_length
    cdef public bint is_full
    cdef public long long left_out
    cdef public long long taken
    cdef public long long timestamp_ns

    @cython.locals(reason=cython.int)
    cdef bint _is_wanted(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
    ) except -1
    cpdef bytes held(self)
    cpdef Py_ssize_t held_wire_length(self) noexcept
    @cython.locals(packet=bytes, network=cython.ulonglong, result=cython.int)
    cpdef int hand_on(self, PacketHandler handler, long long timestamp_ns) except -1
