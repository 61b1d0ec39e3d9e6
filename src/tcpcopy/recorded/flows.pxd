import cython

from tcpcopy.engine.seqnum cimport add, difference
from tcpcopy.packet.checksum cimport Sums, judge
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.networks cimport NetworkTable, realm_bytes
from tcpcopy.packet.segment cimport Segment, copy_bytes, parse
from tcpcopy.packet.twins cimport DatagramTwins, Twins

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
cdef int _FAR_SIGNS
cdef int _DOUBTS
cdef int _RIGHT
cdef int _PSH
cdef int _URG
cdef long long _FORWARD_NS
cdef long long _BACK_NS

cdef class Side:
    cdef public long long bytes
    cdef public long long cut
    cdef public int doubts
    cdef public list early
    cdef public int far
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
    cdef public bint right_sum
    cdef public long long rst_seq
    cdef public long long shown_seq
    cdef public long long urgent_seq

    @cython.locals(end=cython.longlong)
    cpdef bint misses_bytes(self) except -1
    @cython.locals(ahead=cython.longlong)
    cdef object _take_rst(self, long long seq)
    @cython.locals(ahead=cython.longlong)
    cdef object _take_ack(self, long long seq)
    cdef object _doubt(self)
    cdef object _go_on(self)
    cpdef bint is_reset(self) except -1
    @cython.locals(
        bits=cython.int, length=cython.Py_ssize_t, seq=cython.longlong, urgent=cython.longlong
    )
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
    cdef public bint is_twin
    cdef public bint is_udp
    cdef public long long last_ns
    cdef public Side low
    cdef public long long syn_seq

    cpdef bint has_ended(self) except -1

cdef class FlowTable(PacketHandler):
    cdef public long long bad
    cdef public object ended
    cdef public long long fragments
    cdef public long long joined
    cdef public long long jumps_back
    cdef public long long jumps_forward
    cdef long long last_ns
    cdef public long long lost
    cdef public Py_ssize_t most
    cdef public unsigned long long network
    cdef public NetworkTable networks
    cdef public long long not_taken
    cdef public object reassembler
    cdef public long long other
    cdef public long long refused
    cdef unsigned char[::1] scratch
    cdef Segment segment
    cdef public long long seen_twice
    cdef public Sums sums
    cdef public Py_ssize_t sweep_at
    cdef Twins twins
    cdef DatagramTwins datagram_twins
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
        segment=Segment, from_low=cython.bint, key=bytes, flow=Flow, side=Side, other=Side,
        syn_seq=cython.longlong, found=cython.int
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
    @cython.locals(ahead=cython.longlong)
    cdef object _note_time(self, long long timestamp_ns)
    cdef object _give(self, bytes key, Flow flow)
    @cython.locals(side=Side, segment=Segment)
    cdef bint _is_another(self, Flow flow, bint from_low) except -1
    @cython.locals(segment=Segment, to_old=cython.longlong, has_ended=cython.bint)
    cdef bint _is_elsewhere(self, Flow flow, Side side) except -1
    @cython.locals(side=Side, is_answer=cython.bint)
    cdef object _note_syn(self, Flow flow, bint from_low, long long seq)
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
