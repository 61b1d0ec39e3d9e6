import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.relay.native_records cimport NativeDecoder
from tcpcopy.relay.records cimport RecordDecoder

cdef int _READS
cdef long long _GRANT_BYTES
cdef long long _WINDOW_BYTES

cdef class Connection:
    cdef public long long attempt_until_ns
    cdef public long long decide_until_ns
    cdef public RecordDecoder decoder
    cdef public long long granted
    cdef public object handshake
    cdef public bint has_tls
    cdef public long long heard_ns
    cdef public object kind
    cdef public bint marked
    cdef public str name
    cdef public long long next_attempt_ns
    cdef public bytearray out
    cdef public object packets
    cdef public str problem
    cdef public bytearray queued_v4
    cdef public bytearray queued_v6
    cdef public long long retry_ns
    cdef public long long said_ns
    cdef public long long since_ns
    cdef public object socket
    cdef public bint tls_pending
    cdef public long long told_dropped
    cdef public long long told_lost
    cdef public bint tunnel
    cdef public bint up
    cdef public bint waits_to_write
    cdef public bint was_up

    @cython.locals(decoder=RecordDecoder, state=cython.int)
    cpdef int read(self, long long timestamp_ns) except? -9999
    @cython.locals(decoder=NativeDecoder, more=cython.longlong)
    cpdef long long take_losses(self) except -1
    @cython.locals(decoder=NativeDecoder, wanted=cython.longlong)
    cpdef bint grant(self) except -1
    cpdef bint take_credit(self) except -1

cdef class Server:
    cdef public list connections
    cdef public object counts
    cdef public int family
    cdef public bint is_native
    cdef public bint is_single
    cdef public str name
    cdef public bint refused
    cdef public long long renew_ns
    cdef public object resumed
    cdef public tuple sockaddr
    cdef public Py_ssize_t turn

    @cython.locals(connection=Connection)
    cpdef Connection next_up(self)
