import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport copy_bytes

cdef long long _COST

cdef class Backlog(PacketHandler):
    cdef public long long held_bytes
    cdef public long long most_bytes
    cdef public unsigned long long network
    cdef public object packets

    @cython.locals(packet=bytes)
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(
        count=cython.Py_ssize_t, data=bytes, wire_length=cython.Py_ssize_t,
        timestamp_ns=cython.longlong, network=cython.ulonglong
    )
    cpdef Py_ssize_t hand_on(self, PacketHandler handler, Py_ssize_t limit) except -1
