import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport copy_bytes

cdef long long _COST

cdef class Backlog(PacketHandler):
    cdef public long long held_bytes
    cdef public long long most_bytes
    cdef public object packets

    @cython.locals(
        count=cython.Py_ssize_t, data=bytes, wire_length=cython.Py_ssize_t,
        timestamp_ns=cython.longlong
    )
    cpdef Py_ssize_t hand_on(self, PacketHandler handler, Py_ssize_t limit) except -1
