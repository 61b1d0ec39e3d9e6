import cython

cdef class Timed:
    cdef public long long deadline_ns
    cdef public Py_ssize_t heap_index

cdef class TimerHeap:
    cdef list _items

    cpdef long long next_deadline_ns(self)
    cpdef Timed first(self)
    cpdef void schedule(self, Timed item, long long deadline_ns) except *
    cpdef void remove(self, Timed item) except *
    @cython.locals(items=list, item=Timed, above=Timed, parent=cython.Py_ssize_t)
    cdef void _up(self, Py_ssize_t index) except *
    @cython.locals(
        items=list,
        item=Timed,
        below=Timed,
        right=Timed,
        child=cython.Py_ssize_t,
        size=cython.Py_ssize_t,
    )
    cdef void _down(self, Py_ssize_t index) except *
