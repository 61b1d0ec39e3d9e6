import cython

from tcpcopy.engine.flow cimport DatagramCounts, DatagramOutput, Flow, FlowList, Leg
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport (
    Segment,
    destination_address,
    flow_key,
    parse_udp,
    payload_start,
    source_address,
)
from tcpcopy.packet.twins cimport DatagramTwins
from tcpcopy.said.answer cimport is_dns_query

cdef Py_ssize_t _DNS_LEAST
cdef Py_ssize_t _USUAL_PAYLOAD
cdef Py_ssize_t _MOST_ASKED
cdef int _SEEN_TWICE
cdef int _ANSWER_SIDE
cdef int _USED
cdef int _IS_FRAGMENT
cdef int _CUT
cdef int _NO_TRANSFER
cdef int _FRAGMENT
cdef int _FRAGMENT_ALONE
cdef int _SKIPPED_FLOW
cdef int _SHED_FLOW
cdef int _BUG
cdef int _SKIPPED_SAMPLING
cdef int _SHED_MEMORY
cdef int _SHED_FLOWS
cdef int _SEND_FAILED
cdef int _INTERNAL_ERROR
cdef int _AGAIN
cdef int _UDP
cdef int _AUTHENTICATION

cdef class DatagramEngine(PacketHandler):
    cdef public long long clock_offset_ns
    cdef public int copies
    cdef public DatagramCounts counts
    cdef public bint counts_lag
    cdef public long long file_ns
    cdef public dict flows
    cdef public long long idle_ns
    cdef public Py_ssize_t max_entries
    cdef public long long max_flows
    cdef public bint memory_is_short
    cdef public int shut
    cdef public long long most_legs
    cdef public long long now_ns
    cdef public object on_bug
    cdef public long long open_legs
    cdef public FlowList order
    cdef public DatagramOutput output
    cdef public object reassembler
    cdef public long long resumed_ns
    cdef public object sampling
    cdef public Segment segment
    cdef public long long stood_still_ns
    cdef public object transfers
    cdef public DatagramTwins twins
    cdef set asked
    cdef set asked_before

    @cython.locals(
        segment=Segment, key=bytes, flow=Flow, twins=DatagramTwins, captured_ns=cython.longlong
    )
    cdef int _take(self, const unsigned char[::1] data, long long timestamp_ns) except -1
    @cython.locals(segment=Segment, size=cython.Py_ssize_t, reverse=bytes)
    cdef bint _is_answer(self, bytes key, const unsigned char[::1] data) except -1
    @cython.locals(counts=DatagramCounts, length=cython.Py_ssize_t, leg=Leg)
    cdef void _send(self, Flow flow, const unsigned char[::1] data) except *
    cdef void _send_leg(
        self, Leg leg, const unsigned char[::1] data, Py_ssize_t length
    ) except *
    @cython.locals(counts=DatagramCounts, whole=bytes, reason=cython.int, others=cython.longlong)
    cdef int _take_fragment(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        long long timestamp_ns,
    ) except -1
    cdef long long _fragment_clock_ns(self) noexcept
    cdef void _count_given_up(self) except *
    @cython.locals(segment=Segment, flow=Flow, leg=Leg, last=Leg, number=cython.int)
    cdef Flow _open(self, bytes key, const unsigned char[::1] data)
    cdef void _leave_out(self, Flow flow, int outcome, int reason, int number) except *
    @cython.locals(counts=DatagramCounts)
    cdef void _count_live(self, long long number) except *
    @cython.locals(outcome=cython.int)
    cdef void _open_leg(self, Leg leg, bytes client, int client_port, int copy) except *
    @cython.locals(oldest=Flow)
    cdef bint _make_room(self) except -1
    cdef void _end_oldest(self) except *
    @cython.locals(counts=DatagramCounts, leg=Leg, following=Leg)
    cdef void _end(self, Flow flow) except *
    cpdef void answered(self, Leg leg, long long length) except *
    cpdef void flush(self) except *
    @cython.locals(oldest=Flow)
    cpdef long long next_deadline_ns(self)
    @cython.locals(oldest=Flow, count=cython.int)
    cpdef int run_timers(self) except -1
    cdef long long _idle_since_ns(self, Flow flow) noexcept
    cpdef void stand_still(self, long long now_ns, long long duration_ns) noexcept
    @cython.locals(flow=Flow, leg=Leg, count=cython.longlong)
    cpdef long long unfinished(self) except -1
    @cython.locals(reason=cython.int)
    cpdef bint would_open(self, bytes packet, Py_ssize_t wire_length) except -1
    @cython.locals(flow=Flow, newer=Flow)
    cpdef void end_pass(self, bint hears_answers) except *
    cpdef void close_all(self) except *

cdef class ProtocolSwitch(PacketHandler):
    cdef public PacketHandler others
    cdef public PacketHandler udp

@cython.locals(at=cython.Py_ssize_t)
cpdef int is_udp(const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end) noexcept
@cython.locals(hops=cython.int, size=cython.Py_ssize_t)
cdef int _is_udp_behind(
    const unsigned char[::1] data, int following, Py_ssize_t at, Py_ssize_t end
) noexcept
