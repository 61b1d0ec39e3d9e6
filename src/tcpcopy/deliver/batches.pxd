import cython

from tcpcopy.packet.batch cimport PacketBatch, PacketSink

cdef int _EINTR

cdef class BatchSender(PacketSink):
    cdef public object before
    cdef public dict errors
    cdef public list failures

    @cython.locals(
        index=cython.Py_ssize_t, result=cython.int, code=cython.int, waited=cython.bint
    )
    cpdef void send_batch(self, PacketBatch batch)
    cdef int _send_from(self, PacketBatch batch, Py_ssize_t index) except? -9999
    cdef int _mended(self, int code) except -1
    cdef int _given_up(self, PacketBatch batch, Py_ssize_t index, int code) except -1
