import cython

cdef unsigned long long _MULTIPLIER
cdef unsigned long long _MASK

cdef class Frame:
    cdef public Py_ssize_t end
    cdef public int kind
    cdef public int may_be_cut
    cdef public unsigned long long network
    cdef public int unread
    cdef public Py_ssize_t wire_end

    @cython.locals(mixed=cython.ulonglong)
    cdef void enter(self, unsigned long long kind, unsigned long long number) noexcept
