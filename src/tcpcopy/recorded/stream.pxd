import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.recorded.records cimport RecordReader

cdef int _READY
cdef int _ENDED
cdef int _NOT_YET

cdef class PacketStream:
    cdef object _counts
    cdef RecordReader _current
    cdef Py_ssize_t _current_number
    cdef list _heap
    cdef bint _is_ready
    cdef Py_ssize_t _next_file
    cdef object _option
    cdef long long _read_before
    cdef long long _rival_ns
    cdef public list files

    cdef object _begin(self)
    cpdef long long next_ns(self) except -2
    cpdef bint is_ready(self) except -1
    cpdef int hand_on(self, PacketHandler handler) except -1
    cpdef hand_on_all(self, PacketHandler handler)
    @cython.locals(status=cython.int)
    cdef int _settle(self, bint wait) except -1
    @cython.locals(number=cython.Py_ssize_t, status=cython.int)
    cdef int _choose(self, bint wait) except -1
    @cython.locals(status=cython.int)
    cdef int _open_next(self, Py_ssize_t number, bint wait) except -1
