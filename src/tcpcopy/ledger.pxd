import cython

cdef unsigned long long _LOW

cdef class Ledger:
    cdef public str path
    cdef public object header
    cdef public long long count
    cdef public long long unrecorded
    cdef int _fd
    cdef bytes _last_target
    cdef int _last_port
    cdef unsigned long long _last_number
    cdef dict _numbers
    cdef object _map
    cdef unsigned long long[::1] _view
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _free
    cdef Py_ssize_t _places_at
    cdef Py_ssize_t _used
    cdef Py_ssize_t _words

    cdef void _look(self, Py_ssize_t size) except *
    @cython.locals(
        place=cython.Py_ssize_t,
        at=cython.Py_ssize_t,
        octet=cython.Py_ssize_t,
        head=cython.ulonglong,
        address=cython.ulonglong,
        high=cython.ulonglong,
    )
    cpdef Py_ssize_t add(
        self, bytes mapped, unsigned long long port, bytes target, int target_port
    ) except -1
    cdef unsigned long long _number(self, bytes target, int target_port) except 0
    cpdef void remove(self, Py_ssize_t place) except *
    @cython.locals(head=cython.ulonglong, at=cython.Py_ssize_t)
    cpdef bint is_taken(self, Py_ssize_t place) except *
    cpdef tuple session(self, Py_ssize_t place)
    cdef bint _grow(self) except *
    cdef void _remap(self, Py_ssize_t size) except *
