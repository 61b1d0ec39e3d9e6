import cython

from tcpcopy.capture.backlog cimport Backlog
from tcpcopy.capture.ring cimport Ring
from tcpcopy.deliver.tun cimport TunDevice
from tcpcopy.engine.engine cimport Engine
from tcpcopy.packet.batch cimport PacketBatch
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.relay.client cimport RelayClient
from tcpcopy.waiting cimport Waiter, monotonic_ns, nap

cdef Py_ssize_t _DRAIN_LIMIT
cdef Py_ssize_t _OVERFLOW_STEP
cdef Py_ssize_t _OVERFLOW_STEPS
cdef Py_ssize_t _RELAY_BACKLOG
cdef Py_ssize_t _RELAY_LIMIT
cdef Py_ssize_t _BUSY_EVENTS
cdef long long _NAP_NS
cdef long long _HOUSEKEEPING_NS
cdef long long _HURRY_NS
cdef long long _LONGEST_SLEEP_NS
cdef long long _STANDSTILL
cdef Py_ssize_t _RELAY_UNREAD
cdef Py_ssize_t _SOCKET_EVENTS
cdef Py_ssize_t _SOCKET_ROUNDS

cdef class Loop:
    cdef public long long awaited_ns
    cdef public Backlog backlog
    cdef public long long backlog_limit
    cdef public PacketBatch batch
    cdef public Engine engine
    cdef public PacketHandler handler
    cdef public object housekeep
    cdef public long long housekeeping_ns
    cdef public long long hurried_ns
    cdef public Py_ssize_t input_place
    cdef public list places
    cdef public object leftovers
    cdef public object player
    cdef public bint polled
    cdef public RelayClient relay
    cdef public list rings
    cdef public object transport
    cdef public TunDevice tun
    cdef public Py_ssize_t tun_place
    cdef public object udp
    cdef public Waiter waiter

    @cython.locals(handled=cython.Py_ssize_t)
    cpdef void run(self, long long until_ns, Py_ssize_t stop_place) except *
    cpdef bint is_done(self) except *
    cdef bint waited_long(self) except *
    @cython.locals(
        now_ns=cython.longlong, engine=Engine, handled=cython.Py_ssize_t, has_stood=cython.bint
    )
    cpdef Py_ssize_t turn(self) except -1
    @cython.locals(
        deadline_ns=cython.longlong,
        due_ns=cython.longlong,
        timeout_ns=cython.longlong,
        left_ns=cython.longlong,
        leftovers_ns=cython.longlong,
        udp_ns=cython.longlong,
        lines_ns=cython.longlong,
    )
    cpdef void wait(self) except *
    cdef void _watch_input(self, object player) except *
    cdef void _stand_still(self, long long now_ns, long long duration_ns) except *
    @cython.locals(events=cython.Py_ssize_t, total=cython.Py_ssize_t)
    cdef Py_ssize_t _serve_sockets(self, object transport, long long now_ns) except -1
    @cython.locals(
        timestamp_ns=cython.longlong, records=cython.Py_ssize_t, total=cython.Py_ssize_t
    )
    cdef Py_ssize_t _take_answers(
        self, RelayClient relay, long long now_ns, Py_ssize_t limit
    ) except -1
    @cython.locals(
        timestamp_ns=cython.longlong, answers=PacketHandler, taken=cython.Py_ssize_t
    )
    cdef Py_ssize_t _take_local_answers(self, TunDevice tun, long long now_ns) except -1
    @cython.locals(
        backlog=Backlog,
        handled=cython.Py_ssize_t,
        taken=cython.Py_ssize_t,
        index=cython.Py_ssize_t,
        ring=Ring,
    )
    cdef Py_ssize_t _capture(self) except -1
    @cython.locals(backlog=Backlog)
    cdef void _set_aside(self, Ring ring) except *
