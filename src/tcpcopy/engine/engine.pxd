import cython

from tcpcopy.engine cimport seqnum
from tcpcopy.engine.chunk cimport Chunk
from tcpcopy.engine.client cimport TcpClient
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.flows cimport FlowKey, FlowTable
from tcpcopy.engine.kernel cimport KernelClient
from tcpcopy.engine.newcomers cimport Newcomers
from tcpcopy.engine.opening cimport Opener
from tcpcopy.engine.replayed cimport Replayed
from tcpcopy.engine.session cimport Session
from tcpcopy.engine.timers cimport Timers
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport Segment, parse, parse_options, payload, payload_start
from tcpcopy.said.answer cimport kind_of

cdef long long _MASK
cdef long long _IDLE_LOOK
cdef long long _HOLE_LOOK
cdef int _GO_ON
cdef int _USED
cdef int _CUT
cdef int _NO_TRANSFER
cdef int _NO_SESSION
cdef int _PURE_ACK
cdef int _CLOSED_SESSION
cdef int _DUPLICATE
cdef int _OUT_OF_WINDOW
cdef int _EARLY_LIMIT
cdef int _FOREIGN
cdef int _BUG
cdef int _SHED_MEMORY
cdef int _INTERNAL_ERROR
cdef int _FIN
cdef int _SYN
cdef int _RST
cdef int _ACK
cdef int _PSH
cdef Py_ssize_t _LOOKED_AT
cdef int _URG
cdef int _MULTIPATH

cdef class AnswerFeed(PacketHandler):
    cdef Engine engine

cdef class Engine(Newcomers):
    cdef public AnswerFeed answers
    cdef public FlowKey answer_key
    cdef public FlowTable by_answer
    cdef public object leftovers
    cdef public long long max_queued_bytes
    cdef public long long most_queued_bytes
    cdef public object retries
    cdef public Timers timers

    @cython.locals(
        segment=Segment,
        key=FlowKey,
        session=Session,
        sibling=Session,
        is_syn=cython.bint,
        new_data=bytes,
        reason=cython.int,
    )
    cdef int _take_captured(
        self, const unsigned char[::1] data, long long timestamp_ns
    ) except -1
    @cython.locals(
        segment=Segment,
        counts=Counts,
        tail=Chunk,
        captured_ns=cython.longlong,
        held_before=cython.longlong,
        reason=cython.int,
        after_fin=cython.int,
        ack=cython.longlong,
        length=cython.Py_ssize_t,
        outcome=cython.int,
    )
    cdef int _feed(self, Session session, bytes data, long long timestamp_ns) except -1
    @cython.locals(chunk=Chunk, rtt_ns=cython.longlong)
    cdef void _note_turns(self, Session session, Chunk before) except *
    @cython.locals(
        segment=Segment,
        name=object,
        closed=cython.int,
        ended=cython.longlong,
        reason=cython.int,
    )
    cdef int _take_first(
        self, Session before, const unsigned char[::1] data, bint is_syn, long long timestamp_ns
    ) except -1
    @cython.locals(
        new_data=bytes,
        opened=list,
        head=Session,
        session=Session,
        captured_ns=cython.longlong,
        special=cython.int,
    )
    cdef int _open_sessions(
        self,
        object name,
        Segment segment,
        const unsigned char[::1] data,
        bint is_syn,
        long long timestamp_ns,
    ) except? -2
    cdef void _start(
        self,
        Session session,
        bytes data,
        bint is_syn,
        long long captured_ns,
        long long timestamp_ns,
    ) except *
    @cython.locals(outcome=cython.int)
    cdef int _connect(self, Session session) except -1
    @cython.locals(session=Session, sibling=Session)
    cdef void _detach(self, Session head) except *
    cdef void _end_detached(self, Session session) except *
    @cython.locals(segment=Segment, session=Session, reason=cython.int, name=object)
    cpdef int take_answer(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        int told=*,
    ) except -1
    @cython.locals(
        client=TcpClient, segment=Segment, reason=cython.int, known=cython.longlong
    )
    cdef int _feed_answer(
        self, Session session, const unsigned char[::1] data, int told
    ) except -1
    @cython.locals(session=Session)
    cpdef void transport_event(self, KernelClient client) except *
    @cython.locals(deadline_ns=cython.longlong, look_ns=cython.longlong)
    cpdef long long next_deadline_ns(self)
    @cython.locals(
        now=cython.longlong,
        timers=Timers,
        context=Context,
        clock=cython.longlong,
        count=cython.int,
        session=Session,
    )
    cpdef int run_timers(self) except -1
    @cython.locals(half=Replayed, deadline=cython.longlong, outcome=cython.int)
    cdef void _run_session_timers(self, Session session, long long now) except *
    @cython.locals(deadline=cython.longlong)
    cdef void _settle(self, Session session, int outcome) except *
    @cython.locals(ends=cython.longlong, repeat=cython.longlong)
    cdef void _schedule_linger(self, Session session) except *
    @cython.locals(counts=Counts)
    cdef void _finish(self, Session session, int outcome) except *
    @cython.locals(key=FlowKey, head=Session)
    cdef void _unlink(self, Session session) except *
    cdef void _forget(self, Session session) except *
    cdef void _bug(self, Session session) except *
    @cython.locals(
        heads=list, head=Session, session=Session, sibling=Session
    )
    cpdef void end_pass(self) except *
