cdef unsigned long long _LOOPBACK


cdef class OwnAddresses:
    cdef set _addresses
    cdef list _networks

    cpdef bint has_v4(self, unsigned long long address) except -1
    cpdef bint has_v6(self, bytes address) except -1
    cdef bint _is_in_network(self, object size, object address) except -1
