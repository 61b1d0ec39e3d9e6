import cython

from tcpcopy.engine.chunk cimport Chunk, ChunkQueue
from tcpcopy.engine.context cimport Context
from tcpcopy.engine.replayed cimport Replayed
from tcpcopy.said.answer cimport kind_of

cdef long long _POLL
cdef long long _POLL_MAX
cdef int _WOULD_BLOCK
cdef int _RUNNING
cdef int _CLOSED
cdef int _REFUSED
cdef int _RESET
cdef int _RESET_AT_END
cdef int _RESET_SENT
cdef int _CONNECT_TIMEOUT
cdef int _ANSWER_TIMEOUT
cdef int _SEND_FAILED

cdef class Transport:
    cpdef int connect(self, KernelClient client) except? -9999
    cpdef long long waits_until_ns(self, KernelClient client) except? -9999
    cpdef int leave(self, KernelClient client) except? -9999
    cpdef long long send(self, KernelClient client, bytes data, Py_ssize_t at) except? -9999
    cpdef int shutdown(self, KernelClient client) except? -9999
    cpdef int unacknowledged(self, KernelClient client) except? -9999
    cpdef int close(self, KernelClient client, bint reset) except? -9999

cdef class KernelClient(Replayed):
    cdef public bytes address
    cdef public bint closed_first
    cdef public long long close_deadline_ns
    cdef public long long connect_deadline_ns
    cdef public Context context
    cdef public Chunk cursor
    cdef public bint fin_sent
    cdef public int handle
    cdef public object owner
    cdef public long long poll_deadline_ns
    cdef public long long poll_ns
    cdef public ChunkQueue queue
    cdef public long long sent
    cdef public bytes target_address
    cdef public int target_port
    cdef public Transport transport
    cdef public bint writable

    @cython.locals(result=cython.int)
    cpdef int open(self, long long now_ns) except -1
    cpdef int begin_at(self, long long offset) except -1
    cpdef int connect_by(self, long long deadline_ns) except -1
    cdef void _connect_failed(self, int error) except *
    cpdef int on_connecting(self, long long now_ns) except -1
    cpdef int on_connected(self, int error, long long now_ns) except -1
    cpdef int on_answer(self, bytes data) except -1
    cpdef int on_received(self, long long count, long long now_ns) except -1
    cpdef int on_end(self, long long now_ns) except -1
    cpdef int on_error(self, int error, long long now_ns) except -1
    cpdef int on_writable(self, long long now_ns) except -1
    @cython.locals(queue=ChunkQueue, chunk=Chunk, taken=cython.longlong, error=cython.int)
    cpdef int transmit(self, long long now_ns) except -1
    cdef void _close_when_acknowledged(self, long long now_ns) except *
    cdef void _poll_soon(self, long long now_ns) except *
    cdef void _poll(self, long long now_ns) except *
    cdef void _end(self, int how) except *
    @cython.locals(missing=cython.longlong)
    cdef void _settle_delivered(self) except *
    cdef void _drop_handle(self, bint reset) except *
    @cython.locals(earliest=cython.longlong)
    cpdef long long deadline_ns(self) except -1
    @cython.locals(until_ns=cython.longlong)
    cpdef int run_timers(self, long long now_ns) except -1
