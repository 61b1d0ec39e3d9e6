from libc.string cimport memcpy

import cython

cdef bint _LITTLE
cdef int _HEADROOM

cdef class PacketSink:
    cpdef void send_batch(self, PacketBatch batch)

cdef class PacketBatch:
    cdef public object buffer
    cdef public Py_ssize_t capacity
    cdef public Py_ssize_t count
    cdef public long long datagrams
    cdef public int identification
    cdef public Py_ssize_t largest
    cdef int[::1] lengths
    cdef bint lent
    cdef int[::1] payload_at
    cdef int[::1] payload_lengths
    cdef public list payloads
    cdef public PacketSink sink
    cdef int[::1] sizes
    cdef public Py_ssize_t slot_size
    cdef unsigned char[::1] view

    cpdef void flush(self)
    cpdef int part_size(self, Py_ssize_t index)
    cpdef bytes packet(self, Py_ssize_t index)
    @cython.locals(
        start=cython.Py_ssize_t,
        address_size=cython.Py_ssize_t,
        header=cython.Py_ssize_t,
        at=cython.Py_ssize_t,
        options_length=cython.Py_ssize_t,
        tcp_header=cython.Py_ssize_t,
        tcp_length=cython.Py_ssize_t,
        write=cython.Py_ssize_t,
        parts=cython.Py_ssize_t,
        total=cython.longlong,
    )
    cpdef void tcp(
        self,
        bytes source,
        int source_port,
        bytes destination,
        int destination_port,
        long long seq,
        long long ack,
        int flags,
        int window,
        bint timestamp_present,
        long long timestamp_value,
        long long timestamp_echo,
        bytes options,
        bytes payload,
        Py_ssize_t payload_at,
        Py_ssize_t payload_length,
        Py_ssize_t segment_size=*,
    )
    cdef void _put_payload(
        self,
        Py_ssize_t write,
        bytes payload,
        Py_ssize_t payload_at,
        Py_ssize_t payload_length,
        Py_ssize_t segment_size,
    )

    @cython.locals(
        address_size=cython.Py_ssize_t,
        header=cython.Py_ssize_t,
        udp_length=cython.Py_ssize_t,
        whole=cython.bint,
        room=cython.Py_ssize_t,
        done=cython.Py_ssize_t,
        packets=cython.int,
        piece=cython.Py_ssize_t,
        start=cython.Py_ssize_t,
        write=cython.Py_ssize_t,
        begin=cython.Py_ssize_t,
        skip=cython.Py_ssize_t,
        flags=cython.longlong,
        total=cython.longlong,
        checksum=cython.longlong,
    )
    cpdef int udp(
        self,
        bytes source,
        int source_port,
        bytes destination,
        int destination_port,
        const unsigned char[::1] data,
        Py_ssize_t at,
        Py_ssize_t length,
        Py_ssize_t mtu,
    ) except -1

@cython.locals(header=cython.Py_ssize_t, room=cython.Py_ssize_t)
cpdef Py_ssize_t datagram_packets(
    Py_ssize_t address_size, Py_ssize_t length, Py_ssize_t mtu
) noexcept
cdef Py_ssize_t _fragment_bytes(Py_ssize_t address_size, Py_ssize_t mtu) noexcept
cdef long long _pseudo_header(
    unsigned char[::1] view, Py_ssize_t start, Py_ssize_t address_size, Py_ssize_t udp_length
)
cdef void _set_ipv4_udp(
    unsigned char[::1] view, Py_ssize_t at, long long identification, long long fragment
)
cdef void _put_ipv6_fragment(
    unsigned char[::1] view, Py_ssize_t at, long long offset, bint more, long long identification
) noexcept
cdef void _put_data(
    unsigned char[::1] view,
    Py_ssize_t at,
    const unsigned char[::1] data,
    Py_ssize_t data_at,
    Py_ssize_t length,
) noexcept
cdef void _put16(unsigned char[::1] view, Py_ssize_t at, long long value) noexcept
cdef void _put32(unsigned char[::1] view, Py_ssize_t at, long long value) noexcept
cdef void _put_timestamps(
    unsigned char[::1] view, Py_ssize_t at, long long value, long long echo
) noexcept
cdef void _put_bytes(
    unsigned char[::1] view, Py_ssize_t at, bytes source, Py_ssize_t source_at, Py_ssize_t length
)
cdef void _put_ipv4(
    unsigned char[::1] view,
    Py_ssize_t at,
    Py_ssize_t total_length,
    int identification,
    bytes source,
    bytes destination,
)
cdef void _put_ipv6(
    unsigned char[::1] view, Py_ssize_t at, Py_ssize_t length, bytes source, bytes destination
)
cpdef long long checksum_add(
    const unsigned char[::1] view, Py_ssize_t at, Py_ssize_t length, long long total
)
@cython.locals(
    pointer="const unsigned char*",
    wide=cython.ulonglong,
    word=cython.uint,
    half=cython.ushort,
    left=cython.Py_ssize_t,
)
cdef long long _checksum_add_words(
    const unsigned char[::1] view, Py_ssize_t at, Py_ssize_t length, long long total
) noexcept
cpdef int checksum_fold(long long total) noexcept
