import cython

from tcpcopy.engine.flow cimport DatagramCounts, DatagramOutput, Leg
from tcpcopy.packet.batch cimport PacketBatch, datagram_packets

cdef int _NO_ADDRESS

cdef class PacketOutput(DatagramOutput):
    cdef list _legs
    cdef int[::1] _lengths
    cdef int[::1] _starts
    cdef public PacketBatch batch
    cdef public DatagramCounts counts
    cdef public list failures
    cdef public object identities
    cdef public Py_ssize_t mtu
    cdef public long long now_ns
    cdef public long long packets

    @cython.locals(batch=PacketBatch, needed=cython.Py_ssize_t, number=cython.Py_ssize_t)
    cpdef int send(
        self, Leg leg, const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t length
    ) except? -9999
    @cython.locals(
        counts=DatagramCounts, leg=Leg, number=cython.Py_ssize_t, failed=dict
    )
    cpdef void flush(self) except *
    cdef dict _failed_datagrams(self)
