import cython

from tcpcopy.recorded.records cimport Interface, RecordReader, read32

cdef int _PACKET
cdef int _END
cdef int _MORE
cdef long long _MOST_RECORD
cdef long long _SECOND_NS
cdef long long _MOST_SECONDS
cdef long long _MOST_HIGH
cdef Py_ssize_t _MOST_INTERFACES
cdef long long _MOST_OPTIONS
cdef long long _SECTION
cdef long long _INTERFACE
cdef long long _OLD_PACKET
cdef long long _SIMPLE_PACKET
cdef long long _ENHANCED_PACKET

cdef class PcapngReader(RecordReader):
    cdef public bint in_section
    cdef public bint is_big
    cdef public list known
    cdef public long long trailer

    @cython.locals(
        status=cython.int, at=cython.Py_ssize_t, left=cython.Py_ssize_t, kind=cython.longlong
    )
    cpdef int parse(self) except -1
    @cython.locals(left=cython.Py_ssize_t, length=cython.longlong)
    cdef int _pass_rest(self) except -1
    cdef void _leave(self, Py_ssize_t at, Py_ssize_t used, long long length) noexcept
    cdef int _bad_length(self, long long length) except -1
    @cython.locals(order=cython.longlong, length=cython.longlong)
    cdef int _section(self, Py_ssize_t at) except -1
    @cython.locals(length=cython.longlong, wanted=cython.longlong)
    cdef int _block(self, long long kind, Py_ssize_t at, Py_ssize_t left) except -1
    @cython.locals(number=cython.longlong, included=cython.longlong)
    cdef int _timed_packet(
        self, long long kind, Py_ssize_t at, Py_ssize_t left, long long length
    ) except -1
    @cython.locals(original=cython.longlong, included=cython.longlong, first=Interface)
    cdef int _simple_packet(self, Py_ssize_t at, Py_ssize_t left, long long length) except -1
    cdef void _found(
        self, Py_ssize_t at, Py_ssize_t header, Py_ssize_t included, long long length
    ) noexcept
    @cython.locals(units=cython.longlong, ticks=cython.longlong, seconds=cython.longlong)
    cdef int _time(self, long long high, long long low) except -1
    cdef object _interface(self, Py_ssize_t at, Py_ssize_t wanted)

cdef object _HALF_RANGE

@cython.locals(second=object, ticks=object, nanoseconds=object, latest=object)
cdef object _far_time(high, low, interface)
