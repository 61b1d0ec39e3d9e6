import cython

from tcpcopy.packet.segment cimport Segment

cdef int _RIGHT
cdef int _UNFILLED
cdef int _WRONG
cdef int _TCP
cdef int _FIELD
cdef Py_ssize_t _LONGEST

@cython.locals(total=cython.longlong)
cdef long long _sum16(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
cdef long long _fold(long long total) noexcept
@cython.locals(
    start=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    length=cython.longlong,
    addresses=cython.Py_ssize_t,
    pseudo=cython.longlong,
    field=cython.longlong,
)
cpdef int judge(Segment segment, const unsigned char[::1] data) noexcept

cdef class Sums:
    cdef public long long right
    cdef public long long wrong

    cpdef bint is_wrong(self, int found, bint had_right, Py_ssize_t payload_length) noexcept
