import cython

from tcpcopy.engine.client cimport TcpClient
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.counts cimport Counts
from tcpcopy.engine.flows cimport FlowKey
from tcpcopy.engine.kernel cimport KernelClient, Transport
from tcpcopy.engine.replayed cimport Replayed
from tcpcopy.engine.session cimport Session
from tcpcopy.ledger cimport Ledger
from tcpcopy.packet.segment cimport Segment, destination_address, source_address

cdef long long _MASK
cdef int _INTERNAL_ERROR
cdef int _NO_ADDRESS
cdef int _SHED_MEMORY
cdef int _SHED_SESSIONS
cdef int _SKIPPED_PARTIAL
cdef int _SKIPPED_RATE
cdef int _SKIPPED_SAMPLING
cdef int _SHED_SESSION
cdef int _SKIPPED_SESSION

cdef class Opener:
    cdef public object announcer
    cdef public FlowKey answer_key
    cdef public Context context
    cdef public int copies
    cdef public str failure
    cdef public bint full_sessions_only
    cdef public object identities
    cdef bytes known_address
    cdef int known_port
    cdef tuple known_targets
    cdef public Ledger ledger
    cdef public int left_out
    cdef public tuple local_addresses
    cdef public long long max_sessions
    cdef public dict last_clients
    cdef public bint memory_is_short
    cdef public int shut
    cdef public long long opened
    cdef public object rate
    cdef public object sampling
    cdef public object transfers
    cdef public Transport transport

    @cython.locals(
        client_address=bytes,
        targets=tuple,
        counts=Counts,
        sessions=list,
        reason=cython.int,
        shed=cython.int,
        copy=cython.int,
        session=Session,
    )
    cpdef list open(
        self,
        FlowKey key,
        Segment segment,
        const unsigned char[::1] data,
        bint is_syn,
        long long now_ns,
    )
    cpdef long long count_of(
        self, Segment segment, const unsigned char[::1] data
    ) except -1
    cpdef bint is_shedding(self) except -1
    @cython.locals(address=bytes)
    cdef tuple _targets(self, Segment segment, const unsigned char[::1] data)
    cdef int _reason_to_leave_out(
        self, bytes client_address, int client_port, bint is_syn, long long now_ns
    ) except -1
    cdef int _reason_to_shed(self) except -1
    @cython.locals(clock_ns=cython.longlong, opens_ns=cython.longlong, outcome=cython.int)
    cdef int _wait_for_rate(self, Session session, long long now_ns) except -1
    @cython.locals(session=Session, client=TcpClient, answers=FlowKey, counts=Counts)
    cdef Session _make(
        self,
        FlowKey key,
        object target,
        int copy,
        bytes client_address,
        Segment segment,
        bint is_syn,
        long long now_ns,
    )
    @cython.locals(mapped=bytes, address=bytes, place=cython.Py_ssize_t)
    cpdef int announce(self, Session session) except -1
    cdef void _set_syn_options(self, TcpClient client, Segment segment, bint is_syn) except *
    @cython.locals(client=KernelClient)
    cdef KernelClient _kernel_client(self, Session session, object target, Transport transport)
    @cython.locals(before=Replayed, old=TcpClient, client=TcpClient)
    cpdef int replace(self, Session session, long long now_ns) except -1
    @cython.locals(client=TcpClient)
    cpdef int set_round_trip(self, Replayed replayed, long long rtt_ns) except -1
    cpdef int give_back(self, Session session, long long now_ns) except -1
