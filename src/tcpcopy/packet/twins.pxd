import cython

from tcpcopy.packet.segment cimport Segment, copy_bytes

cdef Py_ssize_t _MOST
cdef Py_ssize_t _MOST_DATAGRAMS
cdef long long _WINDOW

cdef class Twins:
    cdef dict young
    cdef dict old

    cpdef int forget_all(self) except -1
    @cython.locals(
        size=cython.Py_ssize_t, at=cython.Py_ssize_t, key=bytes, seen=bytes, before=bytes
    )
    cpdef bint is_seen(self, Segment segment, const unsigned char[::1] data) except -1

@cython.locals(start=cython.Py_ssize_t)
cpdef bytes hops_and_number(Segment segment, const unsigned char[::1] data)
cpdef bint is_forwarded(bytes before, bytes after) except -1

cdef class DatagramTwins:
    cdef set young
    cdef set old
    cdef long long turned_ns

    cpdef int forget_all(self) except -1
    @cython.locals(
        at=cython.Py_ssize_t, length=cython.Py_ssize_t, key=object, since_ns=cython.longlong
    )
    cpdef bint is_seen(
        self, Segment segment, const unsigned char[::1] data, long long timestamp_ns
    ) except -1
