import cython

from tcpcopy.packet.frame cimport Frame
from tcpcopy.packet.links cimport ip_at, network_offset, read16, typed

cdef int _NOT_IP
cdef int _SHORT
cdef int _VLAN
cdef int _VNI
cdef int _KEY
cdef int _TUNNEL_ID
cdef int _GRE
cdef int _ERSPAN
cdef int _VXLAN
cdef int _VXLAN_GPE
cdef int _GENEVE
cdef int _GTP
cdef int _TEREDO
cdef int _TZSP
cdef int _IP_IN_IP
cdef int _ETHER_IP
cdef int _L2TP
cdef int _ESP
cdef int _IPCOMP
cdef int _MPLS
cdef int _MOST_EXTENSIONS
cdef int _MOST_TAGS
cdef int _TCP
cdef int _UDP
cdef int _IPV4
cdef int _IPV6
cdef int _ETHERNET
cdef int _NSH_KIND
cdef int _MPLS_KIND
cdef int _PPP_KIND
cdef int _ERSPAN_KIND
cdef int _ERSPAN_THREE
cdef int _VXLAN_PORT
cdef int _VXLAN_PORT_LINUX
cdef int _GPE_PORT
cdef int _GENEVE_PORT
cdef int _GTP_PORT
cdef int _TEREDO_PORT
cdef int _TZSP_PORT
cdef int _MPLS_PORT
cdef int _ESP_PORT
cdef int _L2TP_PORT

cpdef bint is_tunnel_port(int port) noexcept
cpdef bint is_tunnel_protocol(int protocol) noexcept
@cython.locals(
    end=cython.Py_ssize_t, outer_end=cython.Py_ssize_t, at=cython.Py_ssize_t,
    total=cython.Py_ssize_t, protocol=cython.int, headers=cython.int, size=cython.Py_ssize_t,
    network=cython.ulonglong, inside=cython.Py_ssize_t
)
cpdef Py_ssize_t one_tunnel(
    const unsigned char[::1] data, Py_ssize_t start, Frame frame
) noexcept
@cython.locals(inside=cython.Py_ssize_t)
cdef Py_ssize_t _inside(
    const unsigned char[::1] data, int protocol, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(inside=cython.Py_ssize_t)
cdef Py_ssize_t _carried(
    const unsigned char[::1] data, int kind, Py_ssize_t at, Py_ssize_t end, Frame frame, int tunnel
) noexcept
cdef Py_ssize_t _in_datagram(
    const unsigned char[::1] data, int port, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(tunnel=cython.int, bits=cython.int, kind=cython.int, inside=cython.Py_ssize_t)
cdef Py_ssize_t _vxlan(
    const unsigned char[::1] data, int port, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
cdef int _gpe_kind(int number) noexcept
@cython.locals(size=cython.Py_ssize_t)
cdef Py_ssize_t _geneve(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(
    bits=cython.int, size=cython.Py_ssize_t, following=cython.int, headers=cython.int,
    length=cython.Py_ssize_t
)
cdef Py_ssize_t _gtp(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
cdef Py_ssize_t _teredo(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(
    kind=cython.int, tags=cython.int, tag=cython.int, inside=cython.Py_ssize_t
)
cdef Py_ssize_t _tzsp(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(
    bits=cython.int, version=cython.int, kind=cython.int, size=cython.Py_ssize_t,
    key=cython.Py_ssize_t, inside=cython.Py_ssize_t
)
cdef Py_ssize_t _gre(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(
    is_three=cython.bint, size=cython.Py_ssize_t, carried=cython.int, number=cython.int
)
cdef Py_ssize_t _erspan(
    const unsigned char[::1] data, int kind, int has_sequence, Py_ssize_t at, Py_ssize_t end,
    Frame frame
) noexcept
@cython.locals(header=cython.Py_ssize_t, total=cython.Py_ssize_t)
cdef bint _fits(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t outer_end,
    Frame frame
) noexcept
