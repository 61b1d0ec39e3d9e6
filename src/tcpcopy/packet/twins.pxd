import cython

from tcpcopy.packet.segment cimport Segment, copy_bytes

cdef Py_ssize_t _MOST
cdef Py_ssize_t _MOST_DATAGRAMS
cdef long long _WINDOW

cdef unsigned long long _ADDRESS
cdef unsigned long long _KEY
cdef unsigned long long _SPREAD

@cython.locals(value=cython.ulonglong, place=cython.Py_ssize_t)
cdef unsigned long long _number(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t size
) noexcept

cdef class Twins:
    cdef dict young
    cdef dict old

    cpdef int forget_all(self) except -1
    @cython.locals(
        source=cython.Py_ssize_t,
        client=cython.ulonglong,
        server=cython.ulonglong,
        hops=cython.ulonglong,
        mark=cython.ulonglong,
        key=cython.ulonglong,
        seen=cython.ulonglong,
        before=cython.ulonglong,
        found=object,
    )
    cpdef bint is_seen(self, Segment segment, const unsigned char[::1] data) except -1

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
