import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport copy_bytes
from tcpcopy.relay.headers cimport check_v4, check_v6, read32
from tcpcopy.relay.own cimport OwnAddresses
from tcpcopy.relay.records cimport Peer, RecordWriter
from tcpcopy.relay.route cimport Route

cdef int _FOREIGN
cdef int _CLOSED_SESSION
cdef int _OWN_ADDRESS
cdef Py_ssize_t _MESSAGE_BYTES
cdef Py_ssize_t _MESSAGE_V6_BYTES
cdef Py_ssize_t _EARLY_BYTES
cdef Py_ssize_t _NAME_BYTES
cdef Py_ssize_t _CLIENT_AT
cdef long long _KEPT_NS
cdef int _REMOVE
cdef int _FIN
cdef int _SYN
cdef int _RST
cdef Py_ssize_t _EARLY_PER_SESSION


cdef class AnswerRouter(PacketHandler):
    cdef dict _early
    cdef Py_ssize_t _early_limit
    cdef long long _early_ns
    cdef object _early_queue
    cdef Route _ended
    cdef long long _ended_ns
    cdef long long _idle_ns
    cdef bint _ignore_target
    cdef Route _live
    cdef OwnAddresses _own
    cdef long long _purge_ended
    cdef long long _purge_live
    cdef list _ready
    cdef unsigned long long _replaced
    cdef unsigned long long _replacement
    cdef dict _routes
    cdef dict _routes_v6
    cdef long long _session_limit
    cdef long long _sessions
    cdef list _single
    cdef readonly long long announced
    cdef readonly long long answers
    cdef readonly list drops
    cdef readonly long long early_expired
    cdef readonly long long early_sent
    cdef readonly long long evicted
    cdef readonly long long expired
    cdef readonly long long kept
    cdef readonly long long lost
    cdef public long long now_ns
    cdef readonly long long refused
    cdef readonly long long refused_own
    cdef readonly long long refused_taken
    cdef readonly long long relayed

    @cython.locals(
        reason=cython.int,
        tcp=cython.Py_ssize_t,
        target=cython.longlong,
        client=cython.ulonglong,
        destination=cython.longlong,
        client_port=cython.longlong,
        target_port=cython.longlong,
        flags=cython.int,
        key=cython.ulonglong,
        route=Route,
    )
    cpdef int packet(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(route=Route)
    cdef Route _find(self, unsigned long long key, long long target)
    cdef void _queue(self, RecordWriter writer) except *
    @cython.locals(reason=cython.int, flags=cython.int, name=bytes, route=Route)
    cdef int _packet_v6(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(writer=RecordWriter)
    cdef int _relay(
        self,
        Route route,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        long long destination,
        int flags,
        Py_ssize_t wire_length,
        long long timestamp_ns,
    ) except -1
    @cython.locals(turn=cython.ulonglong)
    cdef Route _give(self, Route route, unsigned long long key, long long target)
    @cython.locals(answers=list)
    cdef int _keep(self, object number, tuple answer) except -1
    @cython.locals(
        start=cython.Py_ssize_t,
        client=cython.ulonglong,
        client_port=cython.longlong,
        target_port=cython.longlong,
        key=cython.ulonglong,
        target=cython.longlong,
    )
    cpdef void messages(self, RecordWriter writer, const unsigned char[::1] data) except *
    @cython.locals(
        start=cython.Py_ssize_t, name=bytes, route=Route
    )
    cpdef void messages_v6(self, RecordWriter writer, bytes data) except *
    cdef void _take_remove(self, RecordWriter writer, Route route) except *
    @cython.locals(route=Route)
    cdef void _take_add(
        self, RecordWriter writer, unsigned long long key, long long target
    ) except *
    @cython.locals(peer=Peer)
    cdef int _admits(self, RecordWriter writer, Route route) except -1
    @cython.locals(writer=RecordWriter)
    cdef int _is_held(self, Route route, Peer peer) except -1
    @cython.locals(key=cython.ulonglong, route=Route)
    cpdef bint holds(
        self, Peer peer, bytes client, long long port, bytes target, long long target_port
    ) except -1
    @cython.locals(head=Route, route=Route, following=Route, gone=cython.longlong)
    cpdef long long set_own(self, OwnAddresses own) except -1
    @cython.locals(at=cython.Py_ssize_t)
    cdef bint _leads_here(self, Route route) except -1
    cdef void _refuse_own(self, RecordWriter writer) except *
    cdef void _attach(self, RecordWriter writer, Route route) except *
    @cython.locals(key=cython.ulonglong, target=cython.longlong, route=Route)
    cpdef void set_single(self, list writers) except *
    cpdef long long kept_since_ns(self) except -2
    @cython.locals(writer=RecordWriter)
    cpdef list take_ready(self)
    cpdef object sweep(self, long long now_ns, Py_ssize_t budget=*)
    @cython.locals(head=Route)
    cpdef object clear(self)
    @cython.locals(route=Route)
    cdef Route _add(self, unsigned long long key, long long target)
    @cython.locals(head=Route, route=Route)
    cdef Route _new_route(self)
    cdef void _end(self, Route route) except *
    cdef void _move(self, Route route, Route head) except *
    @cython.locals(first=Route)
    cdef void _remove(self, Route route) except *
    @cython.locals(route=Route, following=Route)
    cdef long long _sweep_list(
        self, Route head, long long timeout_ns, long long purge, Py_ssize_t budget
    ) except -1
    cdef object _session_number(self, object key, object target)
    cdef void _send_early(self, RecordWriter writer, object number) except *
    cdef void _make_early_room(self) except *
    cdef void _drop_oldest_early(self) except *


cdef void _count_session(Peer peer, int change) noexcept
