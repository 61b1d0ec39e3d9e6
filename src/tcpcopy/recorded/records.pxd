import cython

from tcpcopy.packet.handler cimport PacketHandler
from tcpcopy.packet.links cimport network_offset
from tcpcopy.packet.unwrap cimport Unwrapper

cdef int _READY
cdef int _ENDED
cdef int _NOT_YET
cdef int _PACKET
cdef int _END
cdef int _MORE
cdef int _NOT_IP
cdef int _SHORT
cdef long long _MOST_RECORD
cdef long long _SECOND_NS
cdef object _MOST_UNITS

cdef class Interface:
    cdef public long long cut
    cdef public int link_type
    cdef public object name
    cdef public long long offset_s
    cdef public long long packets
    cdef public int resolution
    cdef public long long snaplen
    cdef public long long units

    cpdef set_resolution(self, int resolution)
    @cython.locals(power=object, base=object)
    cpdef ticks_a_second(self)

cdef class RecordReader:
    cdef public Py_ssize_t capacity
    cdef public Interface current
    cdef public Py_ssize_t data_end
    cdef public Py_ssize_t data_start
    cdef public Py_ssize_t filled
    cdef public long long first_ns
    cdef public long long handed
    cdef public list interfaces
    cdef public bint is_parsed
    cdef public long long last_ns
    cdef public Py_ssize_t need
    cdef public long long original
    cdef public long long packets
    cdef public Py_ssize_t position
    cdef public object problem
    cdef public object raw
    cdef public long long skip_left
    cdef public long long skipped_bad
    cdef public long long skipped_link
    cdef public long long skipped_not_ip
    cdef public long long skipped_short
    cdef public object source
    cdef public object storage
    cdef public long long timestamp_ns
    cdef public Unwrapper unwrapper
    cdef const unsigned char[::1] view
    cdef public Py_ssize_t wire_length
    cdef public object writable

    cpdef int parse(self) except -1
    cpdef bint is_between_records(self) except -1
    @cython.locals(status=cython.int)
    cpdef int advance(self, bint wait) except -1
    @cython.locals(status=cython.int)
    cpdef int next_record(self, bint wait) except -1
    cpdef int hand_on(self, PacketHandler handler) except -1
    cpdef int damage(self, what) except -1
    @cython.locals(captured=cython.Py_ssize_t)
    cdef void _count(self) noexcept
    @cython.locals(start=cython.Py_ssize_t, inside=cython.Py_ssize_t)
    cdef bint _find_packet(self) except -1
    @cython.locals(left=cython.Py_ssize_t, count=cython.Py_ssize_t)
    cdef int _fill(self, bint wait) except -1
    cdef object _grow(self)
    cdef object _used(self)

cdef class PcapReader(RecordReader):
    cdef public long long fraction_ns
    cdef public bint is_big
    cdef public Py_ssize_t record_header
    cdef public bint swaps_lengths

    @cython.locals(
        at=cython.Py_ssize_t, left=cython.Py_ssize_t, included=cython.longlong,
        original=cython.longlong, size=cython.Py_ssize_t
    )
    cpdef int parse(self) except -1

@cython.locals(high=cython.longlong, low=cython.longlong, number=cython.longlong)
cpdef long long read32(const unsigned char[::1] data, Py_ssize_t at, bint is_big) noexcept
