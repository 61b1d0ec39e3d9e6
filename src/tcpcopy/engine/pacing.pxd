import cython

from tcpcopy.engine.chunk cimport Chunk
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.pauses cimport Pauses
from tcpcopy.engine.replayed cimport Replayed
from tcpcopy.engine.round_trip cimport MeasuredHalf

cdef int _G
cdef int _P
cdef long long _UNPUSHED_QUIET
cdef long long _QUIET
cdef long long _FIRST_QUIET
cdef long long _SHORT_QUIET
cdef long long _SURPLUS_FACTOR
cdef long long _SURPLUS_MIN
cdef long long _SURPLUS_MAX
cdef int _GROWING
cdef int _LEAD
cdef long long _BEHIND_FACTOR
cdef long long _WAIT_MIN
cdef int _MOST_TRUST
cdef int _EXPLORED
cdef unsigned char _BRIEFLY
cdef unsigned char _AT_LENGTH
cdef long long _BEGUN_WAIT
cdef long long _GREETING_WAIT
cdef long long _FIRST_WAIT
cdef long long _SILENT_FACTOR
cdef unsigned char _STREAM_MISSES
cdef unsigned char _MOST_MISSES
cdef long long _TAKEN_LOOK
cdef long long _LONG_GAP
cdef double _STREAM_FACTOR
cdef long long _STREAM_FLOOR
cdef Py_ssize_t _WHOLE_SEGMENT
cdef long long _OPEN
cdef long long _ON_PROGRESS
cdef int _FIN
cdef int _RST

cdef class PacedHalf(MeasuredHalf):
    cdef public long long answer_last_ns
    cdef public long long answer_started_ns
    cdef public long long answer_usual_ns
    cdef public long long drift
    cdef public long long excess
    cdef public long long level
    cdef public long long owed
    cdef public long long previous_turn_ns
    cdef public long long previous_turn_offset
    cdef public long long reached_ns
    cdef public long long surplus_0
    cdef public long long surplus_1
    cdef public long long surplus_2
    cdef public long long surplus_3
    cdef public long long turn_base
    cdef public long long turn_captured_ns
    cdef public long long turn_offset
    cdef public long long turn_released_ns
    cdef public unsigned int answer_gap_ns
    cdef public int turn_count
    cdef public unsigned char behind
    cdef public unsigned char expired
    cdef public unsigned char growing
    cdef public unsigned char guessed
    cdef public unsigned char lead
    cdef public unsigned char missed
    cdef public unsigned char misses
    cdef public unsigned char paused
    cdef public unsigned char shorter
    cdef public unsigned char steady
    cdef public unsigned char streaming
    cdef public unsigned char trust
    cdef public unsigned char turn_ends
    cdef public unsigned char unfinished

    cdef void set_up_paced(self, Context context) except *
    @cython.locals(first=cython.bint)
    cpdef int note_turn(self, Chunk chunk) except -1
    @cython.locals(whole=cython.bint)
    cpdef int note_segment_end(self, Py_ssize_t length, int pushed) except -1
    @cython.locals(as_captured=cython.double)
    cdef void _note_pace(self, long long gap_ns) except *
    cdef void _sniff(self, bytes data) except *
    @cython.locals(sample=cython.longlong, gap=cython.longlong)
    cpdef int note_answer(self, long long now_ns) except -1
    @cython.locals(
        chunk=Chunk,
        received=cython.longlong,
        answered=cython.longlong,
        needed=cython.longlong,
        expected=cython.longlong,
    )
    cpdef long long gate_opens_ns(self, Replayed replayed, long long now_ns) except -2
    @cython.locals(quiet=cython.longlong, opens=cython.longlong, bound=cython.longlong)
    cdef long long _when_answered(
        self, Replayed replayed, long long answered, long long expected, long long now_ns
    ) except -2
    @cython.locals(bound=cython.longlong)
    cdef long long _longest_quiet_wait(self) except -1
    @cython.locals(quiet=cython.longlong)
    cdef long long _end_quiet(
        self, Replayed replayed, long long answered, long long expected
    ) except -1
    cdef bint _data_waits(self) except *
    cdef long long _both_quiet(self) noexcept
    @cython.locals(opens=cython.longlong, bound=cython.longlong, quiet=cython.longlong)
    cdef long long _when_short(
        self, Replayed replayed, long long answered, long long expected, long long now_ns
    ) except -2
    @cython.locals(quiet=cython.longlong)
    cdef long long _short_quiet(self, int pushed, bint is_less_than_half) noexcept
    @cython.locals(since=cython.longlong, opens=cython.longlong)
    cdef long long _when_silent(
        self, Chunk chunk, Replayed replayed, long long now_ns
    ) except -2
    @cython.locals(wait=cython.longlong, least=cython.longlong, usual=cython.longlong)
    cdef long long _silent_wait(self, Chunk chunk, long long received) except -1
    cdef long long _open_at(self, long long opens, long long now_ns) noexcept
    @cython.locals(wait=cython.longlong)
    cdef long long _surplus_wait(self) except -1
    @cython.locals(wait=cython.longlong)
    cdef long long _brief_wait(self) noexcept
    cdef long long _shortest_quiet(self) noexcept
    cdef bint _explores(self) noexcept
    @cython.locals(chunk=Chunk, wait=cython.longlong)
    cdef long long _longest_wait(self) except -1
    @cython.locals(chunk=Chunk)
    cpdef int release_gate(self, Replayed replayed, long long now_ns) except -1
    @cython.locals(received=cython.longlong)
    cdef void _settle(self, Chunk chunk, Replayed replayed, long long now_ns) except *
    cdef void _note_miss(self) except *
    @cython.locals(counts=Counts)
    cdef void _count_turn(self, long long lag_ns) except *
    @cython.locals(least=cython.longlong, growth=cython.longlong)
    cdef void _note_surplus(self, long long surplus) except *
    cdef void _note_steady(self, long long surplus, long long growth) except *
