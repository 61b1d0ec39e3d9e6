import cython

from tcpcopy.engine.chunk cimport Chunk
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.pacing cimport PacedHalf
from tcpcopy.engine.replayed cimport Replayed
from tcpcopy.said.answer cimport protocol_of
from tcpcopy.said.tally cimport Tally

cdef long long _OPEN
cdef int _LOOK_AGAIN
cdef int _RUNNING
cdef int _BY_TARGET
cdef long long _CUT_QUIET
cdef long long _CUT_WAIT
cdef long long _CUT_WAITS
cdef long long _CUT_LOOK
cdef int _RST
cdef int _FIN
cdef int _NONE
cdef Py_ssize_t _REALM_KEY
cdef unsigned long long _MASK
cdef int _REPLAYED
cdef int _CLIENT_RESET
cdef int _RESET
cdef int _CLOSED_EARLY
cdef int _ANSWER_TIMEOUT
cdef int _UNANSWERED
cdef int _IDLE_TIMEOUT
cdef int _IDLE_COMPLETE
cdef int _CAPTURE_HOLE
cdef int _OPEN_COMPLETE
cdef int _OPEN_AT_EXIT

cdef class Session(PacedHalf):
    cdef public unsigned long long answer_addresses
    cdef public unsigned long long captured_addresses
    cdef public bytes captured_wide
    cdef public long long gate_deadline_ns
    cdef public long long opens_ns
    cdef public long long received_seen
    cdef public Replayed replayed
    cdef public object retry
    cdef public Session sibling
    cdef public long long slot_ns
    cdef public Tally tally
    cdef public object target
    cdef public unsigned int answer_ports
    cdef public unsigned int captured_ports
    cdef public unsigned int ledger_place
    cdef public int turns_heard
    cdef public unsigned short copy
    cdef public unsigned short mapped_port
    cdef public unsigned char busy
    cdef public unsigned char cut
    cdef public unsigned char from_syn
    cdef public unsigned char lingers
    cdef public unsigned char outcome
    cdef public unsigned char protocol
    cdef public unsigned char right_sum
    cdef public unsigned char special
    cdef public unsigned char unproven

    cdef void set_up_session(self, Context context, int copy, object target) except *
    @cython.locals(half=Replayed, closes=cython.longlong)
    cpdef int advance(self, long long now_ns) except -1
    @cython.locals(chunk=Chunk)
    cdef bint _is_cut_short(self, Replayed half) except *
    @cython.locals(known=cython.int)
    cdef void _note_said(self, Replayed half) except *
    @cython.locals(half=Replayed, online=cython.longlong, target=cython.longlong)
    cpdef int settle_said(self) except -1
    @cython.locals(opens=cython.longlong, turns=cython.longlong, chunk=Chunk)
    cdef void _open_gate(self, Replayed half, long long now_ns) except *
    @cython.locals(chunk=Chunk)
    cdef long long _slot(self, long long now_ns) except -2
    @cython.locals(since=cython.longlong)
    cdef long long _cut_closes_ns(self, Replayed half, long long now_ns) except -2
    @cython.locals(
        half=Replayed,
        context=Context,
        opens=cython.longlong,
        complete=cython.bint,
        clock_ns=cython.longlong,
        active_ns=cython.longlong,
    )
    cpdef int run_timers(self, long long now_ns) except -1
    @cython.locals(answered=cython.longlong)
    @cython.locals(active=cython.longlong)
    cdef long long _last_active_ns(self) except -1
    @cython.locals(since=cython.longlong, context=Context)
    cdef long long _hole_deadline_ns(self) except -1
    @cython.locals(since=cython.longlong)
    cdef long long _answer_deadline_ns(self) except -1
    @cython.locals(context=Context, earliest=cython.longlong, deadline=cython.longlong)
    cpdef long long next_deadline_ns(self) except -1
    cpdef int end_of_capture(self, long long now_ns) except -1
    cpdef int tear(self, long long now_ns) except -1
    @cython.locals(busy=cython.bint)
    cpdef int note_busy(self) except -1
    cpdef bint is_parked(self) except *
    cpdef int give_up(self, int outcome, long long now_ns) except -1
    @cython.locals(half=Replayed)
    cpdef bint is_delivered(self) except *
    cpdef int outcome_at_exit(self) except -1
    @cython.locals(half=Replayed, how=cython.int)
    cdef int _outcome_of_ending(self) except -1
    @cython.locals(heard=cython.longlong)
    cdef bint _was_answered(self) noexcept
