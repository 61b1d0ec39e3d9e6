import cython

from tcpcopy.engine.datagram cimport is_udp
from tcpcopy.engine.engine cimport Engine
from tcpcopy.engine.flows cimport FlowKey
from tcpcopy.engine.session cimport Session
from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.segment cimport (
    Segment, destination_address, flow_key, parse, source_address
)

cdef int _PARSED
cdef int _FIN
cdef int _SYN
cdef int _RST
cdef int _ACK

cdef class Unread(PacketHandler):
    cdef int _copies
    cdef dict _counted
    cdef Engine _engine
    cdef FlowKey _key
    cdef unsigned long long _network
    cdef long long _now_ns
    cdef bint _only_udp
    cdef object _sampling
    cdef Segment _segment
    cdef object _transfers
    cdef bint _with_udp
    cdef public long long packets
    cdef public long long sessions
    cdef public long long udp_packets

    cpdef void add(self, long long packets) except *
    @cython.locals(segment=Segment, key=FlowKey, name=object, engine=Engine, realm=cython.int)
    cdef void _take_syn(self, const unsigned char[::1] data) except *
    @cython.locals(engine=Engine, session=Session)
    cdef bint _has_begun(self, object name) except *
