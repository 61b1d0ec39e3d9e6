import cython

from tcpcopy.report.histogram cimport Histogram
from tcpcopy.said.answer cimport dns_kind
from tcpcopy.said.tally cimport Tally

cdef int _DNS
cdef int _SEND_ERROR
cdef int _REPLAYED
cdef int _REFUSED
cdef int _INCOMPLETE
cdef int _SEND_FAILED

cdef class Leg:
    cdef public bytes address
    cdef public long long answers
    cdef public object connection
    cdef public long long dropped
    cdef public Flow flow
    cdef public Leg following
    cdef public int handle
    cdef public bint is_dns
    cdef public int outcome
    cdef public int port
    cdef public int queued
    cdef public int reason
    cdef public long long refused
    cdef public long long sent
    cdef public long long sent_ns
    cdef public bytes target_address
    cdef public int target_port
    cdef public int weight

    cpdef int final_outcome(self) noexcept

cdef class Flow:
    cdef public bytes key
    cdef public long long last_ns
    cdef public Leg legs
    cdef public Flow newer
    cdef public Flow older

cdef class FlowList:
    cdef public Flow newest
    cdef public Flow oldest

    cpdef void add(self, Flow flow) noexcept
    cpdef void remove(self, Flow flow) noexcept
    cpdef void touch(self, Flow flow, long long now_ns) noexcept

cdef class DatagramCounts:
    cdef public long long answer_bytes
    cdef public Histogram answer_time
    cdef public long long answered
    cdef public long long answers
    cdef public long long bytes_captured
    cdef public long long bytes_sent
    cdef long long[::1] datagram_drops
    cdef public long long datagrams
    cdef public dict errors
    cdef public long long fragments
    cdef public long long joined
    cdef public Histogram lag
    cdef public long long large
    cdef public long long live
    cdef long long[::1] outcomes
    cdef long long[::1] packet_drops
    cdef public long long packets
    cdef public long long peak
    cdef public long long refusals
    cdef public dict said
    cdef public long long seen

    cpdef void sent(self, Leg leg, long long length, long long now_ns) except *
    cpdef void failed(self, Leg leg, int error) except *
    cpdef void error(self, int number) except *
    cpdef void refused(self, Leg leg) except *
    @cython.locals(tally=Tally)
    cpdef void note_dns(self, Leg leg, bytes header) except *
    cpdef void answer(self, Leg leg, long long length, long long now_ns) except *

cdef class DatagramOutput:
    cpdef int open(
        self, Leg leg, bytes client_address, int client_port, int copy
    ) except? -9999
    cpdef int send(
        self, Leg leg, const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t length
    ) except? -9999
    cpdef void flush(self) except *
    cpdef void close(self, Leg leg) except *
