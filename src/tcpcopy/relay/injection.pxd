import cython

from tcpcopy.deliver.tun cimport TunDevice
from tcpcopy.packet.segment cimport copy_bytes

cdef int _BROKEN
cdef int _NOT_IP
cdef int _BAD_HEADER
cdef int _OPTIONS
cdef int _FRAGMENT
cdef int _NOT_TCP
cdef int _SOURCE
cdef int _DESTINATION
cdef int _DEVICE


cdef class Injector:
    cdef dict _allowed
    cdef TunDevice _device
    cdef bint _fixed
    cdef dict _known
    cdef object _local
    cdef tuple _sources
    cdef readonly list drops
    cdef readonly long long injected
    cdef readonly int reason

    @cython.locals(
        at=cython.Py_ssize_t,
        end=cython.Py_ssize_t,
        dropped=cython.Py_ssize_t,
        length=cython.Py_ssize_t,
        reason=cython.int,
    )
    cpdef Py_ssize_t inject(self, const unsigned char[::1] body) except -1
    @cython.locals(
        version=cython.int,
        total=cython.Py_ssize_t,
        protocol=cython.int,
        network=cython.Py_ssize_t,
        tcp=cython.Py_ssize_t,
        header=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
        target=cython.Py_ssize_t,
        port=cython.int,
    )
    cdef int _check(
        self, const unsigned char[::1] body, Py_ssize_t at, Py_ssize_t length
    ) except -1
    cdef bint _is_allowed(self, bytes address, int port) except -1
    cdef bint _is_client(self, bytes address) except -1


cdef int _other_protocol(int protocol) except -1
