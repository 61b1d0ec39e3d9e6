import cython

from tcpcopy.engine.context cimport Context
from tcpcopy.engine.flows cimport FlowKey, FlowTable
from tcpcopy.engine.session cimport Session
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.networks cimport NetworkTable
from tcpcopy.packet.segment cimport Segment, flow_key, parse

cdef int _USED
cdef long long _MASK
cdef int _IS_FRAGMENT

cdef class Incoming(PacketHandler):
    cdef public FlowTable by_client
    cdef public Context context
    cdef public FlowKey key
    cdef public unsigned long long network
    cdef public NetworkTable networks
    cdef public object reassembler
    cdef public Segment segment

    cdef void set_up_incoming(self, Context context, object seed) except *
    cdef int _take_captured(
        self, const unsigned char[::1] data, long long timestamp_ns
    ) except -1
    @cython.locals(
        segment=Segment, networks=NetworkTable, known_seq=cython.longlong, key=bytes,
        realm=cython.int
    )
    cdef Session in_realm(self, Session session, const unsigned char[::1] data)
    @cython.locals(held=object, whole=bytes, reason=cython.int, others=cython.longlong)
    cdef int _take_fragment(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        long long timestamp_ns,
    ) except -1
    @cython.locals(held=object, lost=cython.longlong)
    cdef void _count_given_up(self) except *
    cdef void end_incoming(self) except *
