import cython

from tcpcopy.engine.flows cimport number
from tcpcopy.packet.segment cimport Segment, copy_bytes

cdef Py_ssize_t _SYN_OFFSET
cdef Py_ssize_t _IPV4_ADDRESSES
cdef Py_ssize_t _IPV6_ADDRESSES

@cython.locals(
    before=cython.Py_ssize_t, start=cython.Py_ssize_t, size=cython.Py_ssize_t, head=bytes
)
cpdef bytes keep_syn(
    Segment segment, const unsigned char[::1] data, long long captured_ns, long long sessions
)
cpdef long long syn_time(bytes syn) except -1
cpdef long long syn_sessions(bytes syn) except -1

cdef class HalfOpen:
    cdef public Py_ssize_t bytes_young
    cdef public Py_ssize_t most
    cdef public Py_ssize_t most_bytes
    cdef public dict old
    cdef public long long sessions_old
    cdef public long long sessions_young
    cdef public dict young

    @cython.locals(pushed_out=cython.longlong)
    cpdef long long put(self, object name, bytes syn, long long sessions) except -1
    @cython.locals(syn=bytes)
    cpdef bytes find(self, object name)
    @cython.locals(syn=bytes)
    cpdef bytes take(self, object name)
    @cython.locals(expired=cython.longlong)
    cpdef long long turn(self) except -1
    cpdef long long clear(self) except -1
    @cython.locals(syn=bytes)
    cpdef bytes oldest(self)
