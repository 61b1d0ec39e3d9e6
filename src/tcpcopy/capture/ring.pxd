from tcpcopy.packet.frame cimport Frame
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.links cimport typed

import cython

cdef extern from *:
    """
    /* The status word is shared with the kernel: the rest of a frame may be read only after it says
       that the frame is ours, and must have been read before it says that it is not. */
    static inline unsigned int tcpcopy_load_status(const unsigned char *base, Py_ssize_t at) {
        return __atomic_load_n((const unsigned int *)(base + at), __ATOMIC_ACQUIRE);
    }
    static inline void tcpcopy_store_status(unsigned char *base, Py_ssize_t at, unsigned int v) {
        __atomic_store_n((unsigned int *)(base + at), v, __ATOMIC_RELEASE);
    }
    static inline unsigned int tcpcopy_read_u32(const unsigned char *base, Py_ssize_t at) {
        return *(const unsigned int *)(base + at);
    }
    static inline unsigned int tcpcopy_read_u16(const unsigned char *base, Py_ssize_t at) {
        return *(const unsigned short *)(base + at);
    }
    """
    unsigned int load_status "tcpcopy_load_status"(
        const unsigned char *base, Py_ssize_t at
    ) noexcept
    void store_status "tcpcopy_store_status"(
        unsigned char *base, Py_ssize_t at, unsigned int value
    ) noexcept
    unsigned int read_u32 "tcpcopy_read_u32"(const unsigned char *base, Py_ssize_t at) noexcept
    unsigned int read_u16 "tcpcopy_read_u16"(const unsigned char *base, Py_ssize_t at) noexcept

cdef unsigned int _STATUS_USER
cdef unsigned int _STATUS_COPY
cdef unsigned int _STATUS_KERNEL
cdef unsigned int _STATUS_VLAN
cdef int _IPV4
cdef int _IPV6
cdef int _TAG
cdef int _SERVICE_TAG
cdef Py_ssize_t _TAG_BYTES
cdef Py_ssize_t _SHORTEST_HEADER
cdef Py_ssize_t _MOST_PADDING
cdef Py_ssize_t _AT_LENGTH
cdef Py_ssize_t _AT_CAPTURED
cdef Py_ssize_t _AT_NETWORK
cdef Py_ssize_t _AT_SECONDS
cdef Py_ssize_t _AT_NANOSECONDS
cdef Py_ssize_t _AT_TAG
cdef Py_ssize_t _AT_PROTOCOL
cdef long long _SECOND_NS
cdef int _VLAN

cdef class Ring:
    cdef public long long copied
    cdef public long long cut
    cdef public long long device_downs
    cdef public object device
    cdef public object failed
    cdef public long long queue_bytes
    cdef public long long skipped
    cdef public list unread
    cdef public bint unwraps
    cdef public Frame frame
    cdef unsigned char *base
    cdef unsigned char[::1] copy_view
    cdef object copy_buffer
    cdef object mapping
    cdef object socket
    cdef bint adrift
    cdef bint down
    cdef bint promiscuous
    cdef int protocol
    cdef long long dropped
    cdef long long received
    cdef Py_ssize_t frame_count
    cdef Py_ssize_t frame_size
    cdef Py_ssize_t frames_let_go
    cdef Py_ssize_t ring_bytes
    cdef Py_ssize_t next_frame
    cdef Py_ssize_t snaplen
    cdef unsigned char[::1] view

    @cython.locals(
        handed=cython.Py_ssize_t, _=cython.Py_ssize_t, at=cython.Py_ssize_t,
        status=cython.uint
    )
    cpdef Py_ssize_t drain(self, PacketHandler handler, Py_ssize_t limit) except -1
    @cython.locals(count=cython.Py_ssize_t, index=cython.Py_ssize_t)
    cpdef Py_ssize_t waiting(self) except -1
    @cython.locals(
        wire_length=cython.Py_ssize_t, available=cython.Py_ssize_t, start=cython.Py_ssize_t,
        timestamp_ns=cython.longlong, seconds=cython.longlong, copied=cython.Py_ssize_t,
        protocol=cython.int, vlan=cython.int
    )
    cdef Py_ssize_t _hand_on(
        self, PacketHandler handler, Py_ssize_t at, unsigned int status
    ) except -1
    @cython.locals(network=cython.Py_ssize_t, end=cython.Py_ssize_t, is_tagged=cython.bint)
    cdef Py_ssize_t _hand_on_ip(
        self, PacketHandler handler, const unsigned char[::1] data, Py_ssize_t start,
        Py_ssize_t available, Py_ssize_t wire_length, int protocol, long long timestamp_ns,
        int vlan
    ) except -1
    @cython.locals(frame=Frame, at=cython.Py_ssize_t, tag=cython.int)
    cdef Py_ssize_t _find_network(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t found,
        int protocol, int vlan
    ) except -2
    @cython.locals(following=cython.int, version=cython.int, length=cython.Py_ssize_t)
    cdef Py_ssize_t _skip_tags(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end,
        Py_ssize_t wire_length, int protocol
    ) except -2
    @cython.locals(
        before=cython.uint, status=cython.uint, index=cython.Py_ssize_t, at=cython.Py_ssize_t,
        seconds=cython.longlong, timestamp_ns=cython.longlong, oldest_ns=cython.longlong
    )
    cdef object _find_place(self)
    cdef Py_ssize_t _receive_copy(self, Py_ssize_t wire_length) except -2
