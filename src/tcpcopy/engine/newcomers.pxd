import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.flows cimport FlowKey, number
from tcpcopy.engine.handshakes cimport Handshakes
from tcpcopy.engine.session cimport Session
from tcpcopy.packet.checksum cimport Sums, judge
from tcpcopy.packet.segment cimport (
    Segment,
    destination_address,
    parse_options,
    source_address,
)
from tcpcopy.packet.twins cimport Twins

cdef int _CONTESTED
cdef int _MULTIPATH
cdef int _MP_CAPABLE
cdef int _MP_JOIN
cdef Py_ssize_t _MOST_MULTIPATH
cdef int _RIGHT
cdef long long _MASK
cdef long long _FAR
cdef long long _LONG
cdef int _GO_ON
cdef int _USED
cdef int _DUPLICATE
cdef int _NO_TRANSFER
cdef int _OUT_OF_WINDOW
cdef int _NO_ACK
cdef int _BAD_CHECKSUM
cdef int _STRAY_SYN
cdef int _SEEN_TWICE
cdef int _ANSWER_SIDE
cdef int _SUBFLOW
cdef int _IS_MPTCP
cdef int _SYN
cdef int _RST
cdef int _PSH
cdef int _ACK
cdef int _URG

cdef class Newcomers(Handshakes):
    cdef public bint judges_sums
    cdef public dict multipath
    cdef public Sums sums
    cdef public Twins twins

    cdef void set_up_newcomers(self, bint judges_sums) except *
    cpdef void end_newcomers(self) except *
    cdef void _detach(self, Session head) except *
    cdef void _settle(self, Session session, int outcome) except *
    cdef int _take_first(
        self, Session before, const unsigned char[::1] data, bint is_syn, long long timestamp_ns
    ) except -1
    @cython.locals(
        segment=Segment, reason=cython.int, last=cython.longlong, sibling=Session
    )
    cdef int _judge(
        self, Session session, const unsigned char[::1] data, long long timestamp_ns
    ) except -2
    @cython.locals(segment=Segment, found=cython.int)
    cdef int _judge_sum(self, Session session, const unsigned char[::1] data) except -2
    @cython.locals(
        counts=Counts,
        waiting=bytes,
        sessions=cython.longlong,
        captured_ns=cython.longlong,
        session=Session,
    )
    cdef int _contest(
        self, object name, Session head, const unsigned char[::1] data, long long timestamp_ns
    ) except -1
    @cython.locals(
        segment=Segment,
        session=Session,
        syn=bytes,
        next_byte=cython.longlong,
        to_old=cython.longlong,
        to_new=cython.longlong,
    )
    cdef int _settle_contest(
        self, Session head, const unsigned char[::1] data, long long timestamp_ns
    ) except -2
    @cython.locals(counts=Counts, sessions=cython.longlong)
    cdef void _drop_contender(self, object name, bytes syn) except *
    @cython.locals(segment=Segment, size=cython.longlong, ahead=cython.longlong)
    cdef bint _is_elsewhere(self, long long ended) except -1
    @cython.locals(segment=Segment, head=Session, next_byte=cython.longlong)
    cdef int _use_again(self, const unsigned char[::1] data, long long timestamp_ns) except -1
    @cython.locals(segment=Segment)
    cdef int _judge_pick_up(self, object name, const unsigned char[::1] data) except -2
    @cython.locals(segment=Segment, source=bytes, key=FlowKey, name=object)
    cdef bint _is_answer(self, const unsigned char[::1] data) except -1
    @cython.locals(segment=Segment, counts=Counts, server=bytes)
    cdef int _judge_syn(
        self, object name, const unsigned char[::1] data, long long sessions
    ) except -2
    cdef bytes _server_port(self)
    @cython.locals(segment=Segment, at=cython.Py_ssize_t)
    cdef void _note_multipath(self, const unsigned char[::1] data) except *
    @cython.locals(
        segment=Segment, token=cython.longlong, server=bytes, key=FlowKey, head=Session
    )
    cdef void _give_up_multipath(self, const unsigned char[::1] data) except *
    @cython.locals(session=Session, sibling=Session)
    cdef void _end_multipath(self, Session head) except *
