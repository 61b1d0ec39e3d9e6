import cython

from tcpcopy.engine.client cimport TcpClient
from tcpcopy.engine.session cimport Session
from tcpcopy.mapping.places cimport Places, mix
from tcpcopy.packet.networks cimport realm_bytes
from tcpcopy.packet.segment cimport Segment, flow_key

cdef int _PART_SHIFT
cdef unsigned long long _WIDE_MASK
cdef unsigned long long _PORTS_MASK
cdef Py_ssize_t _WIDE_KEY

@cython.locals(value=cython.ulonglong, place=cython.Py_ssize_t)
cpdef unsigned long long number(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t size
) noexcept
@cython.locals(octets="const unsigned char*", high=cython.ulonglong, low=cython.ulonglong)
cdef unsigned long long address_number(bytes address) noexcept
cdef bytes number_bytes(unsigned long long ports)
@cython.locals(high=object)
cpdef object flow_name(unsigned long long addresses, unsigned long long ports, bytes wide)

cdef class FlowKey:
    cdef public unsigned long long addresses
    cdef public unsigned long long ports
    cdef public bytes wide

    cdef void read(self, Segment segment, const unsigned char[::1] data) except *
    cpdef void in_realm(
        self, Segment segment, const unsigned char[::1] data, int realm
    ) except *
    cpdef void of(
        self, bytes source, long long source_port, bytes destination, long long port
    ) except *
    @cython.locals(size=cython.Py_ssize_t, both=object)
    cpdef void named(self, object name) except *
    cpdef object name(self)

cdef class _Part(Places):
    cdef list before
    cdef public list items

cdef class FlowTable:
    cdef bint _of_answers
    cdef list _parts
    cdef unsigned long long _seed

    @cython.locals(
        hashed=cython.ulonglong,
        part=_Part,
        hashes="unsigned int[::1]",
        place=cython.ulonglong,
        session=Session,
    )
    cpdef Session find(self, FlowKey key)
    @cython.locals(hashed=cython.ulonglong, part=_Part, place=cython.ulonglong)
    cpdef void add(self, Session session) except *
    @cython.locals(hashed=cython.ulonglong, part=_Part, place=cython.longlong)
    cpdef bint remove(self, Session session) except *
    @cython.locals(hashed=cython.ulonglong, part=_Part, place=cython.longlong)
    cpdef void replace(self, Session session, Session other) except *
    @cython.locals(place=cython.ulonglong)
    cdef long long _place(self, _Part part, unsigned long long hashed, Session session) except -2
    @cython.locals(client=TcpClient)
    cdef bint _has_key(self, Session session, FlowKey key) except *
    cdef unsigned long long _hash_of(self, Session session) noexcept
