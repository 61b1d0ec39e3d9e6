from cpython.bytes cimport PyBytes_FromStringAndSize

import cython

cdef int _PARSED
cdef int _NOT_IP
cdef int _SHORT
cdef int _BAD_HEADER
cdef int _FRAGMENT
cdef int _NOT_TCP
cdef int _MAX_SACK_BLOCKS
cdef int _TCP
cdef int _UDP
cdef int _AUTHENTICATION

cdef class Segment:
    cdef public long long ack
    cdef public Py_ssize_t address_offset
    cdef public int address_size
    cdef public Py_ssize_t available
    cdef public int destination_port
    cdef public int flags
    cdef public Py_ssize_t header_offset
    cdef public int mss
    cdef public int multipath
    cdef public Py_ssize_t multipath_at
    cdef public int multipath_size
    cdef public Py_ssize_t options_end
    cdef public Py_ssize_t payload_length
    cdef public Py_ssize_t payload_offset
    cdef public int sack_count
    cdef public long long sack_end_0
    cdef public long long sack_end_1
    cdef public long long sack_end_2
    cdef public long long sack_end_3
    cdef public int sack_permitted
    cdef public long long sack_start_0
    cdef public long long sack_start_1
    cdef public long long sack_start_2
    cdef public long long sack_start_3
    cdef public long long seq
    cdef public int source_port
    cdef public long long timestamp_echo
    cdef public int timestamp_present
    cdef public long long timestamp_value
    cdef public int window
    cdef public int window_scale

    cpdef void clear_options(self) noexcept

@cython.locals(number=cython.int)
cdef int _read16(const unsigned char[::1] data, Py_ssize_t at) noexcept
@cython.locals(high=cython.longlong, low=cython.longlong, number=cython.longlong)
cdef long long _read32(const unsigned char[::1] data, Py_ssize_t at) noexcept
cpdef int parse(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t start,
    Py_ssize_t end,
    Py_ssize_t wire_length,
) noexcept
cpdef int parse_udp(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t start,
    Py_ssize_t end,
    Py_ssize_t wire_length,
) noexcept
@cython.locals(version=cython.int)
cdef int _parse_ip(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t start,
    Py_ssize_t end,
    Py_ssize_t wire_length,
    int protocol,
) noexcept
@cython.locals(
    header=cython.Py_ssize_t, total=cython.Py_ssize_t, at=cython.Py_ssize_t, following=cython.int
)
cdef int _parse_v4(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t start,
    Py_ssize_t end,
    Py_ssize_t wire_length,
    int protocol,
) noexcept
@cython.locals(
    total=cython.Py_ssize_t, following=cython.int, at=cython.Py_ssize_t, hops=cython.int
)
cdef int _parse_v6(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t start,
    Py_ssize_t end,
    Py_ssize_t wire_length,
    int protocol,
) noexcept
@cython.locals(header=cython.Py_ssize_t, available=cython.Py_ssize_t)
cdef int _parse_tcp(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t at,
    Py_ssize_t end,
    Py_ssize_t packet_end,
) noexcept
@cython.locals(length=cython.Py_ssize_t, available=cython.Py_ssize_t)
cdef int _parse_udp(
    Segment segment,
    const unsigned char[::1] data,
    Py_ssize_t at,
    Py_ssize_t end,
    Py_ssize_t packet_end,
) noexcept
@cython.locals(
    at=cython.Py_ssize_t, end=cython.Py_ssize_t, kind=cython.int, size=cython.Py_ssize_t
)
cpdef void parse_options(Segment segment, const unsigned char[::1] data) noexcept
@cython.locals(count=cython.Py_ssize_t)
cdef void _parse_sack(
    Segment segment, const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t size
) noexcept
cpdef bytes copy_bytes(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t size)
@cython.locals(size=cython.Py_ssize_t)
cpdef bytes flow_key(Segment segment, const unsigned char[::1] data)
cpdef bytes source_address(Segment segment, const unsigned char[::1] data)
cpdef bytes destination_address(Segment segment, const unsigned char[::1] data)
cpdef bytes payload(Segment segment, const unsigned char[::1] data, Py_ssize_t skip)
@cython.locals(size=cython.Py_ssize_t)
cpdef bytes payload_start(
    Segment segment, const unsigned char[::1] data, Py_ssize_t skip, Py_ssize_t most
)
