import cython

from tcpcopy.relay.records cimport RecordWriter

cdef int _SYN
cdef int _RST
cdef long long _AGAIN_NS
cdef int _NOT_UNDERSTOOD


@cython.trashcan(True)
cdef class Route:
    cdef long long active_ns
    cdef int answered
    cdef long long checked_ns
    cdef int ended
    cdef unsigned long long key
    cdef bytes name
    cdef Route newer
    cdef Route older
    cdef int removed
    cdef Route sibling
    cdef long long target
    cdef RecordWriter writer

    cdef void unlink(self) noexcept
    cdef void link_newest(self, Route head) noexcept
    @cython.locals(writer=RecordWriter)
    cdef void judge(self, int flags, long long now_ns) except *
