import cython

from tcpcopy.packet.segment cimport Segment

cdef int _FIN
cdef int _SYN
cdef int _ACK
cdef long long _UNKNOWN
cdef Py_ssize_t _MOST_CONNECTIONS
cdef int _MOST_STRANDS
cdef Py_ssize_t _MOST_NETWORKS
cdef long long _NEAR
cdef long long _HALF
cdef long long _MASK

@cython.locals(ahead=cython.longlong)
cdef long long _distance(long long number, long long other) noexcept

cdef class Strand:
    cdef public Strand following
    cdef public long long isn
    cdef public long long isn_high
    cdef public unsigned long long network
    cdef public list others
    cdef public int realm
    cdef public long long seq
    cdef public long long seq_high

    cdef bint knows(self, unsigned long long network) except -1
    cdef void add(self, unsigned long long network) except *
    @cython.locals(isn=cython.longlong, seq=cython.longlong, other=cython.longlong)
    cdef bint fits(self, Segment segment, bint from_low) noexcept
    @cython.locals(
        bits=cython.int, seq=cython.longlong, known=cython.longlong, isn=cython.longlong
    )
    cdef void take(
        self, Segment segment, bint from_low, unsigned long long network
    ) except *

cdef class NetworkTable:
    cdef dict _before
    cdef dict _now
    cdef Py_ssize_t _strands
    cdef public long long told_apart

    @cython.locals(first=Strand, strand=Strand)
    cpdef int realm(
        self,
        bytes key,
        bint from_low,
        Segment segment,
        unsigned long long network,
        long long known_seq,
    ) except -1
    @cython.locals(found=Strand)
    cdef Strand _first(self, bytes key)
    cdef void _put(self, bytes key, Strand strand) except *
    @cython.locals(
        fitting=Strand, knowing=Strand, last=Strand, count=cython.int, strand=Strand,
        fits=cython.bint, made=Strand
    )
    cdef Strand _find(
        self, Strand first, Segment segment, bint from_low, unsigned long long network
    )

cpdef bytes realm_bytes(int realm)
