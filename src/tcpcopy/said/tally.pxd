from tcpcopy.said.answer cimport settle, settle_greeting

cdef int _SLOTS
cdef int _NONE
cdef int _HTTP_1XX
cdef int _MYSQL_GREETING
cdef int _MYSQL
cdef int _UNKNOWN
cdef int _LOOK_AGAIN

cdef class Tally:
    cdef long long[::1] kinds
    cdef public long long bytes_online
    cdef public long long bytes_target
    cdef public long long sessions

    cpdef int note(self, int protocol, int kind, bint greets) noexcept
    cpdef void note_bytes(self, long long online, long long target) noexcept
