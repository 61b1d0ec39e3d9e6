import cython

cdef int _PORTS
cdef int _PORT_MASK
cdef int _WORD_SHIFT
cdef int _WORD_BITS
cdef int _WORD_MASK
cdef int _WORDS
cdef bytes _EMPTY
cdef unsigned long long _ONE
cdef unsigned long long _ALL
cdef Py_ssize_t _ENTRY
cdef Py_ssize_t _MOST_FEW
cdef int _EXPIRED_A_CALL
cdef int _FIRST_RING

cdef class PortRange:
    cdef readonly int first
    cdef readonly int last
    cdef unsigned long long[::1] masks
    cdef readonly int size

    cdef int has(self, int port) noexcept

cdef class Ports:
    cpdef Py_ssize_t used(self) except -1
    cpdef int take(self, int port) except -1
    cpdef int find(self, int start) except -1
    cpdef int take_oldest(self) except -1
    cpdef int release(self, int port, long long until_ns) except -1
    cpdef int expire(self, long long now_ns) except -1

cdef class FewPorts(Ports):
    cdef bytearray _entries
    cdef PortRange _range

    cpdef Py_ssize_t used(self) except -1
    cdef int is_full(self) except -1
    cdef int only_live(self) except -1
    cpdef int take(self, int port) except -1
    @cython.locals(ports=PortRange, port=cython.int)
    cpdef int find(self, int start) except -1
    @cython.locals(at=cython.Py_ssize_t, port=cython.int)
    cpdef int take_oldest(self) except -1
    @cython.locals(at=cython.Py_ssize_t)
    cpdef int release(self, int port, long long until_ns) except -1
    @cython.locals(at=cython.Py_ssize_t, until_ns=cython.longlong)
    cpdef int expire(self, long long now_ns) except -1
    @cython.locals(
        many=ManyPorts, at=cython.Py_ssize_t, port=cython.int, until_ns=cython.longlong
    )
    cdef ManyPorts grown(self)
    @cython.locals(entries=bytearray, high=cython.int, low=cython.int, at=cython.Py_ssize_t)
    cdef Py_ssize_t _place(self, int port) except -2
    @cython.locals(at=cython.Py_ssize_t)
    cdef void _append(self, int port, long long until_ns) except *
    @cython.locals(entries=bytearray, place=cython.int)
    cdef void _put(self, Py_ssize_t at, int port, long long until_ns) except *
    @cython.locals(entries=bytearray)
    cdef int _port(self, Py_ssize_t at) except -1
    @cython.locals(entries=bytearray, place=cython.int, until_ns=cython.longlong)
    cdef long long _until(self, Py_ssize_t at) except -1

cdef class ManyPorts(Ports):
    cdef unsigned long long[::1] _blocked
    cdef unsigned short[::1] _cooling
    cdef Py_ssize_t _first
    cdef unsigned long long[::1] _live
    cdef Py_ssize_t _number
    cdef PortRange _range
    cdef long long[::1] _until
    cdef Py_ssize_t _used

    cpdef Py_ssize_t used(self) except -1
    @cython.locals(word=cython.int, bit=cython.ulonglong)
    cpdef int take(self, int port) except -1
    @cython.locals(
        masks="unsigned long long[::1]",
        word=cython.int,
        wanted=cython.ulonglong,
        free=cython.ulonglong,
        port=cython.int,
    )
    cpdef int find(self, int start) except -1
    @cython.locals(port=cython.int)
    cpdef int take_oldest(self) except -1
    @cython.locals(word=cython.int, bit=cython.ulonglong, place=cython.Py_ssize_t)
    cpdef int release(self, int port, long long until_ns) except -1
    @cython.locals(port=cython.int)
    cpdef int expire(self, long long now_ns) except -1
    cdef int _pop(self) noexcept
    @cython.locals(size=cython.Py_ssize_t, number=cython.Py_ssize_t, place=cython.Py_ssize_t)
    cdef void _double_ring(self) except *
