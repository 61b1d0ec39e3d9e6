import cython

from tcpcopy.relay.records cimport RecordDecoder, RecordWriter

cdef long long _ANSWERS
cdef int _PING
cdef int _REPORT
cdef Py_ssize_t _MOST_REPORT
cdef Py_ssize_t _MOST_REPORTS
cdef int _CREDIT
cdef int _DROPPED
cdef int _FRAME
cdef Py_ssize_t _FRAME_HEADER
cdef Py_ssize_t _ANSWERS_HEADER
cdef Py_ssize_t _RECORD_HEADER
cdef Py_ssize_t _PING_BYTES
cdef long long _LONGEST_DELTA_NS
cdef Py_ssize_t _MOST_IN_FRAME
cdef long long _HIGHEST_16
cdef long long _SIGN_32
cdef long long _MOST_TIME_NS
cdef long long _MOST_CREDIT
cdef long long _MOST_LOST
cdef long long _VERSION_4
cdef long long _VERSION_6
cdef long long _TTL_AND_TCP

cdef void _put32(unsigned char[::1] view, Py_ssize_t at, long long value) noexcept
@cython.locals(high=cython.longlong, low=cython.longlong)
cdef long long _read32(unsigned char[::1] view, Py_ssize_t at) noexcept
@cython.locals(high=cython.longlong, number=cython.longlong)
cdef long long _read64(unsigned char[::1] view, Py_ssize_t at, long long most) noexcept


cdef class NativeDecoder(RecordDecoder):
    cdef long long _base_ns
    cdef Py_ssize_t _body
    cdef readonly long long captured_ns
    cdef readonly long long consumed
    cdef readonly list reports
    cdef readonly long long packet_credit
    cdef readonly long long told_dropped
    cdef readonly long long told_lost
    cdef readonly int told_reason

    @cython.locals(handed=cython.Py_ssize_t)
    cdef Py_ssize_t _unpack(self, long long timestamp_ns) except -1
    @cython.locals(
        view=cython.uchar[::1],
        available=cython.Py_ssize_t,
        at=cython.Py_ssize_t,
        kind=cython.int,
        length=cython.Py_ssize_t,
        number=cython.longlong,
    )
    cdef int _begin_frame(self) except -1
    @cython.locals(
        view=cython.uchar[::1],
        at=cython.Py_ssize_t,
        available=cython.Py_ssize_t,
        version=cython.int,
        addresses=cython.Py_ssize_t,
        network=cython.Py_ssize_t,
        transport=cython.Py_ssize_t,
        payload=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
        end=cython.Py_ssize_t,
        total=cython.longlong,
        length=cython.longlong,
    )
    cdef int _take_record(self, long long timestamp_ns) except -1


cdef class NativeWriter(RecordWriter):
    cdef long long _base_ns
    cdef long long _packed
    cdef Py_ssize_t _payload_limit
    cdef readonly long long allowed
    cdef readonly long long offset

    cpdef void grant(self, long long offset) noexcept
    @cython.locals(
        out=cython.uchar[::1],
        version=cython.int,
        network=cython.Py_ssize_t,
        total=cython.Py_ssize_t,
        addresses=cython.Py_ssize_t,
        address_bytes=cython.Py_ssize_t,
        whole=cython.Py_ssize_t,
        tcp=cython.Py_ssize_t,
        transport=cython.Py_ssize_t,
        payload=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
        at=cython.Py_ssize_t,
        offset=cython.Py_ssize_t,
    )
    cpdef int append(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        long long destination=*,
        Py_ssize_t wire_length=*,
        long long timestamp_ns=*
    ) except -1
    cpdef int ping(self, long long lost) except -1
    cpdef int credit(self, long long offset) except -1
    cpdef int dropped(self, long long reason, long long packets) except -1
    @cython.locals(view=cython.uchar[::1], at=cython.Py_ssize_t)
    cdef int _tell(self, long long kind, long long number) except -1
    @cython.locals(
        view=cython.uchar[::1],
        at=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
        offset=cython.Py_ssize_t,
    )
    cpdef int put_frame(self, bytes frame) except -1
    @cython.locals(covered=cython.longlong)
    cpdef Py_ssize_t sendable(self) except -1
    cpdef void sent(self, Py_ssize_t count) noexcept
    @cython.locals(
        view=cython.uchar[::1],
        delta=cython.longlong,
        needed=cython.Py_ssize_t,
        at=cython.Py_ssize_t,
        length=cython.Py_ssize_t,
    )
    cdef Py_ssize_t _reserve_record(self, Py_ssize_t size, long long timestamp_ns) except -2
