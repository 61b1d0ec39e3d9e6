import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.relay.connection cimport Connection, Server
from tcpcopy.relay.records cimport RecordDecoder

cdef int _NOT_OUT
cdef int _OUT

cdef class RelayClient:
    cdef dict _by_fd
    cdef object _deadline_ns
    cdef PacketHandler _handler
    cdef object _layout
    cdef object _live_sessions
    cdef object _poll
    cdef public Py_ssize_t _queue_bytes
    cdef bint _resuming
    cdef public list _servers
    cdef object _terms
    cdef dict _turns
    cdef list _unsent
    cdef public list faults

    @cython.locals(records=cython.Py_ssize_t)
    cpdef Py_ssize_t service(self, long long now_ns, long long timestamp_ns) except -1
    @cython.locals(server=Server, connection=Connection, told=cython.int)
    cpdef int announce(
        self, bytes mapped, int mapped_port, bytes target, int target_port
    ) except -1
    @cython.locals(server=Server, connection=Connection)
    cpdef void withdraw(
        self, bytes mapped, int mapped_port, bytes target, int target_port
    ) except *
    @cython.locals(server=Server, connection=Connection, unsent=list)
    cpdef void flush(self, long long now_ns) except *
    @cython.locals(server=Server)
    cpdef object next_deadline_ns(self)
    cpdef int _queue(self, Server server, Connection connection, tuple session) except -1
    cpdef void _mark(self, Server server, Connection connection) except *
    @cython.locals(server=Server, connection=Connection, records=cython.Py_ssize_t)
    cdef Py_ssize_t _on_event(
        self, int fd, int events, long long now_ns, long long timestamp_ns
    ) except -1
    @cython.locals(
        decoder=RecordDecoder,
        records_before=cython.longlong,
        malformed_before=cython.longlong,
        state=cython.int,
        handed=cython.longlong,
    )
    cdef Py_ssize_t _receive(
        self, Server server, Connection connection, long long now_ns, long long timestamp_ns
    ) except -1
    cdef void _send(self, Server server, Connection connection, long long now_ns) except *
    cdef void _watch_writing(self, Connection connection, bint wanted) except *
    cpdef void _heard(self, Server server, Connection connection) except *
