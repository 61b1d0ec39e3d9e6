import cython

from tcpcopy.engine.seqnum cimport add, difference
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.networks cimport NetworkTable, realm_bytes
from tcpcopy.packet.segment cimport Segment, copy_bytes, parse

cdef int _PARSED
cdef int _FRAGMENT
cdef int _NOT_TCP
cdef int _FIN
cdef int _SYN
cdef int _RST
cdef int _ACK
cdef Py_ssize_t _FIRST_BYTES
cdef int _UNTRIED
cdef Py_ssize_t _MOST_EARLY
cdef long long _LINGER_NS
cdef Py_ssize_t _FIRST_SWEEP
cdef long long _SWEEP_AGAIN
cdef long long _FAR

cdef class Side:
    cdef public long long bytes
    cdef public long long cut
    cdef public list early
    cdef public long long fin_seq
    cdef public int guessed
    cdef public bint has_ack
    cdef public bint has_fin
    cdef public bint has_rst
    cdef public bint has_syn
    cdef public bint has_syn_ack
    cdef public long long isn
    cdef public long long next_seq
    cdef public long long other_ack
    cdef public long long packets

    @cython.locals(end=cython.longlong)
    cpdef bint misses_bytes(self) except -1
    @cython.locals(bits=cython.int, length=cython.Py_ssize_t, seq=cython.longlong)
    cdef object take(self, Segment segment, const unsigned char[::1] data)
    @cython.locals(first=cython.Py_ssize_t)
    cdef object _guess(self, Segment segment, const unsigned char[::1] data)
    @cython.locals(ahead=cython.longlong)
    cdef object _take_payload(self, long long seq, Py_ssize_t length, Py_ssize_t available)
    cdef object _keep_early(self, long long seq, Py_ssize_t length)
    @cython.locals(joined=cython.bint, piece=tuple, new=cython.longlong)
    cdef object _join(self)

cdef class Flow:
    cdef public bint first_from_low
    cdef public long long first_ns
    cdef public Side high
    cdef public bint is_udp
    cdef public long long last_ns
    cdef public Side low

    cpdef bint has_ended(self) except -1

cdef class FlowTable(PacketHandler):
    cdef public long long bad
    cdef public object ended
    cdef public long long fragments
    cdef public long long joined
    cdef public long long lost
    cdef public Py_ssize_t most
    cdef public unsigned long long network
    cdef public NetworkTable networks
    cdef public object reassembler
    cdef public long long other
    cdef public long long refused
    cdef unsigned char[::1] scratch
    cdef Segment segment
    cdef public Py_ssize_t sweep_at
    cdef public dict tcp
    cdef public long long tcp_packets
    cdef public dict udp
    cdef public long long udp_packets

    @cython.locals(status=cython.int)
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(
        segment=Segment, from_low=cython.bint, key=bytes, flow=Flow, side=Side, other=Side
    )
    cdef object _take_tcp(self, const unsigned char[::1] data, long long timestamp_ns)
    @cython.locals(whole=bytes)
    cdef object _take_fragment(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end,
        long long timestamp_ns
    )
    cdef object _count_lost(self)
    @cython.locals(known_seq=cython.longlong, realm=cython.int, networks=NetworkTable)
    cdef bytes _in_realm(self, bytes key, Flow flow, bint from_low)
    @cython.locals(side=Side)
    cdef bint _is_another(self, Flow flow, bint from_low) except -1
    @cython.locals(
        segment=Segment, at=cython.Py_ssize_t, length=cython.Py_ssize_t, from_low=cython.bint,
        key=bytes, flow=Flow, side=Side, available=cython.Py_ssize_t
    )
    cdef object _take_udp(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end,
        long long timestamp_ns
    )
    @cython.locals(
        segment=Segment, kind=cython.int, at=cython.Py_ssize_t, extensions=cython.int,
        size=cython.Py_ssize_t
    )
    cdef Py_ssize_t _udp_header(
        self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end
    ) except -2
    @cython.locals(
        segment=Segment, size=cython.Py_ssize_t, source=cython.Py_ssize_t,
        ports=cython.Py_ssize_t, order=cython.int, i=cython.Py_ssize_t, low=cython.Py_ssize_t,
        high=cython.Py_ssize_t
    )
    cdef bint _fill_key(self, const unsigned char[::1] data) except -1
    cdef bint _has_room(self, long long now_ns) except -1
    cdef object _sweep(self, long long now_ns)
    cdef object _give_all(self, dict table, bint only_opened)
