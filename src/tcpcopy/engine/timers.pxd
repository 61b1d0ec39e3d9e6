import cython

cdef int _SLOT_SHIFT
cdef long long _NEAR
cdef int _MOVED_AT_ONCE

cdef class Timed:
    cdef public long long deadline_ns
    cdef public unsigned int far_index
    cdef public unsigned int far_slot
    cdef public Py_ssize_t heap_index

    cdef void set_up_timed(self) except *
cdef class TimerHeap:
    cdef list _items

    cpdef long long next_deadline_ns(self)
    cpdef Timed first(self)
    @cython.locals(index=cython.Py_ssize_t)
    cpdef void schedule(self, Timed item, long long deadline_ns) except *
    @cython.locals(index=cython.Py_ssize_t, last=Timed)
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

cdef class Timers:
    cdef list _due
    cdef dict _far
    cdef TimerHeap _near

    @cython.locals(near=cython.longlong, far=cython.longlong)
    cpdef long long next_deadline_ns(self)
    @cython.locals(slot=cython.uint)
    cpdef void schedule(self, Timed item, long long deadline_ns, long long now_ns) except *
    cpdef void remove(self, Timed item) except *
    @cython.locals(deadline=cython.longlong)
    cpdef Timed first_due(self, long long now_ns)
    @cython.locals(budget=cython.int, slot=cython.longlong, items=list, item=Timed)
    cpdef void advance(self, long long now_ns) except *
    @cython.locals(items=list)
    cdef void _enter(self, Timed item, unsigned int slot) except *
    @cython.locals(items=list, last=Timed)
    cdef void _leave(self, Timed item) except *
