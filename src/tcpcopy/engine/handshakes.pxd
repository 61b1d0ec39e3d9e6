import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.ended cimport Ended
from tcpcopy.engine.flood cimport FloodWatch
from tcpcopy.engine.flows cimport FlowKey
from tcpcopy.engine.half_open cimport HalfOpen, keep_syn, syn_sessions, syn_time
from tcpcopy.engine.incoming cimport Incoming
from tcpcopy.engine.opening cimport Opener
from tcpcopy.engine.session cimport Session
from tcpcopy.packet.segment cimport Segment, parse

cdef long long _NEVER
cdef long long _MASK
cdef long long _FARTHEST
cdef long long _SECOND
cdef long long _STUCK
cdef long long _PRESUME_MOST
cdef int _CALM_LOOKS
cdef Py_ssize_t _SYN_OFFSET
cdef int _GO_ON
cdef int _USED
cdef int _CUT
cdef int _DUPLICATE
cdef int _NO_TRANSFER
cdef int _OUT_OF_WINDOW
cdef int _INCOMPLETE
cdef int _FIN
cdef int _RST
cdef int _ACK

cdef class Handshakes(Incoming):
    cdef public bint acks_known
    cdef public long long acks_since_ns
    cdef public dict ahead
    cdef public long long ahead_most
    cdef public long long ahead_sessions
    cdef public int calm_looks
    cdef public long long clock_offset_ns
    cdef public Ended ended
    cdef public FloodWatch flood
    cdef public long long flood_patience_ns
    cdef public HalfOpen half_open
    cdef public FlowKey linked_key
    cdef public long long look_ns
    cdef public long long now_ns
    cdef public object on_bug
    cdef public Opener opener
    cdef public long long patience_ns
    cdef public long long presume_from_ns
    cdef public long long presume_left
    cdef public long long presume_ns
    cdef public bint pure_acks
    cdef public Segment syn_segment
    cdef public long long turned_ns
    cdef public long long wait_ns
    cdef public bint wants_acks

    @cython.locals(speed=cython.double)
    cdef void set_up_handshakes(
        self, object config, Context context, Opener opener, object on_bug
    ) except *
    cpdef void divide(self, long long workers) except *
    cdef int _open_sessions(
        self,
        object name,
        Segment segment,
        const unsigned char[::1] data,
        bint is_syn,
        long long timestamp_ns,
    ) except? -2
    cdef int _judge_syn(
        self, object name, const unsigned char[::1] data, long long sessions
    ) except -2
    cdef void _finish(self, Session session, int outcome) except *
    cdef void _bug(self, Session session) except *
    cdef void _note_who_speaks_first(self, Session session) except *
    @cython.locals(before=cython.longlong)
    cdef void _note_distance(self, Session session, long long captured_ns) except *
    cpdef void note_acks(self, bint captured, long long now_ns) except *
    cdef void _note_pure_ack(self) noexcept
    cdef bint _is_blind(self, long long syn_ns) noexcept
    cdef bint _is_doubtful(self, long long syn_ns) noexcept
    @cython.locals(
        segment=Segment,
        counts=Counts,
        captured_ns=cython.longlong,
        waiting=bytes,
        sessions=cython.longlong,
        syn=bytes,
        reason=cython.int,
        session=Session,
    )
    cdef int _take_syn(
        self, object name, const unsigned char[::1] data, long long timestamp_ns
    ) except -1
    @cython.locals(pushed_out=cython.longlong)
    cdef void _wait(self, object name, bytes syn, long long sessions) except *
    @cython.locals(counts=Counts)
    cdef void _count_incomplete(self, long long sessions) except *
    cdef void _parse_syn(self, bytes syn) except *
    @cython.locals(segment=Segment, syn=bytes, ahead=cython.longlong, reason=cython.int)
    cdef int _take_of_waiting(
        self, object name, const unsigned char[::1] data, long long timestamp_ns
    ) except -2
    @cython.locals(counts=Counts, sessions=cython.longlong, timestamp_ns=cython.longlong)
    cdef int _open_waiting(self, object name, bytes syn) except -2
    @cython.locals(segment=Segment, ahead=cython.longlong, name=object, syn=bytes)
    cdef int _prove(self, Session session, long long timestamp_ns) except -2
    cdef void _prove_late(self, object name, long long timestamp_ns) except *
    @cython.locals(syn=bytes)
    cdef void _settle_ahead(self, object name, long long timestamp_ns) except *
    @cython.locals(syn=bytes)
    cdef bytes _drop_ahead(self, object name)
    @cython.locals(session=Session)
    cdef void _clear_unproven(self, Session head) except *
    @cython.locals(session=Session, sibling=Session, left=cython.longlong)
    cdef void _end_unproven(self, object name, Session head) except *
    @cython.locals(syn=bytes)
    cdef bint _supersede(self, object name, Session head) except -1
    @cython.locals(head=Session)
    cdef Session _unproven(self, object name, bytes syn)
    @cython.locals(
        head=Session,
        session=Session,
        sibling=Session,
        sessions=cython.longlong,
        counts=Counts,
    )
    cdef void _take_back(self, object name, bytes syn) except *
    @cython.locals(name=object, syn=bytes, head=Session)
    cpdef void end_handshakes(self) except *
    cdef long long handshake_deadline_ns(self)
    @cython.locals(now_ns=cython.longlong, clock_ns=cython.longlong, flood=FloodWatch)
    cdef void _look_at_handshakes(self) except *
    cdef void _look_at_wish(self, long long clock_ns) except *
    @cython.locals(oldest=bytes, waiting=bytes)
    cdef bint _is_stuck(self, long long clock_ns, long long after_ns) except -1
    @cython.locals(
        flood=FloodWatch,
        patience_ns=cython.longlong,
        name=object,
        syn=bytes,
        waited_ns=cython.longlong,
        head=Session,
    )
    cdef void _look_at_ahead(self, long long clock_ns) except *
    @cython.locals(syn_ns=cython.longlong)
    cdef bint _is_presumable(self, bytes syn, long long clock_ns) except -1
    @cython.locals(name=object, syn=bytes)
    cdef void _look_at_waiting(self, long long clock_ns) except *
