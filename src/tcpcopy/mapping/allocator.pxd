import cython

from tcpcopy.mapping.portmap cimport PortMap
from tcpcopy.mapping.ports cimport FewPorts, PortRange, Ports

cdef int _PORT_MASK
cdef int _FIRST_PORT
cdef int _TAG_BYTES
cdef Py_ssize_t _SINGLE_BYTES
cdef int _BATCHES
cdef int _SWEPT_A_CALL

cpdef int preferred_port(int client_port, int copy, int factor, int shift=*) except -1
cdef int _shifted(int port, int addition) noexcept
@cython.locals(place=cython.Py_ssize_t, number=cython.ulonglong)
cdef unsigned long long _number(bytes key) noexcept

cdef class Allocator:
    cdef list _batch
    cdef long long _batch_ends_ns
    cdef object _batches
    cdef long long _cooldown_ns
    cdef int _copies
    cdef int _factor
    cdef bytes _last_address
    cdef int _last_port
    cdef bytes _last_tag
    cdef bytes _localhost_replacement
    cdef dict _pools
    cdef PortRange _range
    cdef tuple _ranges
    cdef int _shift
    cdef PortMap _single
    cdef dict _spaces
    cdef long long _sweep_ns
    cdef dict _tags
    cdef int _worker
    cdef int _workers
    cdef readonly long long live

    @cython.locals(tag=bytes, port=cython.int, kept=cython.bint, key=bytes)
    cpdef tuple acquire(
        self,
        bytes client_address,
        int client_port,
        bytes target_address,
        int target_port,
        int copy,
        long long now_ns,
    )
    @cython.locals(
        home=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
        address=bytes,
        key=bytes,
        port=cython.int,
        start=cython.int,
    )
    cdef tuple _acquire_pooled(
        self,
        object pool,
        bytes client_address,
        int client_port,
        int copy,
        bytes tag,
        int wanted,
        long long now_ns,
    )
    @cython.locals(key=bytes, space=Ports)
    cpdef bint release(
        self, bytes address, int port, bytes target_address, int target_port, long long now_ns
    ) except -1
    @cython.locals(
        space=Ports, number=cython.ulonglong, port=cython.int, few=FewPorts
    )
    cdef Ports _space(self, bytes key)
    @cython.locals(few=FewPorts)
    cdef void _begin(self, bytes key, int port) except *
    @cython.locals(tag=bytes)
    cdef bytes _tag(self, bytes target_address, int target_port)
    @cython.locals(place=cython.longlong, above=cython.int)
    cdef int _start(self, bytes client_address, long long client_port, int copy) except -1
    @cython.locals(space=Ports)
    cdef int _take_wanted(self, bytes key, int port, long long now_ns) except -1
    @cython.locals(space=Ports, port=cython.int)
    cdef int _take_free(self, bytes key, int start) except -1
    cdef PortRange _range_of(self, bytes key)
    @cython.locals(space=Ports)
    cdef int _take_oldest(self, bytes key) except -1
    @cython.locals(few=FewPorts)
    cdef int _add(self, bytes key, Ports space, int port) except -1
    @cython.locals(due_ns=cython.longlong, keys=list)
    cdef void _sweep(self, long long now_ns) except *
    @cython.locals(space=Ports, few=FewPorts, port=cython.int)
    cdef void _forget_expired(self, bytes key, long long now_ns) except *
