import cython

from tcpcopy.packet.frame cimport Frame

cdef int _NOT_IP
cdef int _SHORT
cdef int _UNKNOWN_LINK
cdef int _VLAN
cdef int _SERVICE
cdef int _LABEL
cdef int _MACSEC
cdef int _MPLS
cdef int _NSH
cdef int _PPP
cdef int _WIRELESS_SECRET
cdef int _WIRELESS_PARTS
cdef int _WIRELESS_SEVERAL
cdef int _WIRELESS_DAMAGED
cdef int _MOST_HEADERS
cdef int _MOST_VLANS
cdef int _MOST_LABELS
cdef int _MOST_LINKS
cdef int _MOST_RECORDS
cdef int _MOST_WORDS
cdef Py_ssize_t _LONGEST_PKTAP
cdef int _IPV4
cdef int _IPV6
cdef int _LLC
cdef int _ETHERNET
cdef int _PPP_KIND
cdef int _MPLS_KIND

@cython.locals(number=cython.int)
cpdef int read16(const unsigned char[::1] data, Py_ssize_t at) noexcept
@cython.locals(number=cython.int)
cdef int _read16_little(const unsigned char[::1] data, Py_ssize_t at) noexcept
@cython.locals(high=cython.Py_ssize_t)
cdef Py_ssize_t _read32_little(const unsigned char[::1] data, Py_ssize_t at) noexcept
cpdef Py_ssize_t network_offset(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int link_type, Frame frame
) noexcept
@cython.locals(links=cython.int, size=cython.Py_ssize_t)
cdef Py_ssize_t _other_link(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int link_type, Frame frame
) noexcept
cdef int _small(Py_ssize_t number) noexcept
cdef Py_ssize_t _last_link(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int link_type, Frame frame
) noexcept
@cython.locals(version=cython.int)
cpdef Py_ssize_t ip_at(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(headers=cython.int, tags=cython.int, size=cython.Py_ssize_t)
cpdef Py_ssize_t typed(
    const unsigned char[::1] data, int kind, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(size=cython.Py_ssize_t)
cdef Py_ssize_t _shim(
    const unsigned char[::1] data, int kind, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(size=cython.Py_ssize_t)
cdef Py_ssize_t _macsec(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(labels=cython.int, size=cython.Py_ssize_t, version=cython.int)
cdef Py_ssize_t _labels(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(size=cython.Py_ssize_t, following=cython.int)
cdef Py_ssize_t _service_header(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(size=cython.Py_ssize_t, protocol=cython.int)
cdef Py_ssize_t _ppp_header(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
cdef Py_ssize_t _llc(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(family=cython.int)
cdef Py_ssize_t _loopback(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
cdef Py_ssize_t _serial(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, int link_type, Frame frame
) noexcept
@cython.locals(records=cython.int, size=cython.Py_ssize_t, kind=cython.int)
cdef Py_ssize_t _netfilter(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) noexcept
@cython.locals(
    size=cython.Py_ssize_t, has_time=cython.int, has_flags=cython.int, place=cython.Py_ssize_t,
    words=cython.int, is_padded=cython.bint
)
cdef Py_ssize_t _radiotap(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(size=cython.Py_ssize_t)
cdef Py_ssize_t _old_wireless(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, Frame frame
) noexcept
@cython.locals(
    control=cython.int, bits=cython.int, size=cython.Py_ssize_t, is_aggregate=cython.bint
)
cdef Py_ssize_t _wireless(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end, bint is_padded, Frame frame
) noexcept
