cdef class PacketHandler:
    cdef public unsigned char kind

    cpdef void enter(self, unsigned long long network) except *
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
