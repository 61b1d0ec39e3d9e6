import cython

from tcpcopy.packet.batch cimport PacketBatch, PacketSink
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport Segment, parse, payload, source_address

cdef bytes _NOTHING

cdef class CopyHandler(PacketHandler):
    cdef PacketBatch batch
    cdef Segment segment
    cdef bytes target
    cdef int target_port

    @cython.locals(segment=Segment, content=bytes)
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
