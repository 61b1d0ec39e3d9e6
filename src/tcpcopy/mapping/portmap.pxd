import cython

from tcpcopy.mapping.places cimport Places, mix

cdef int _PART_SHIFT
cdef int _PORT_BITS
cdef unsigned long long _PORT_MASK

cdef class _Ports(Places):
    cdef unsigned long long[::1] before
    cdef unsigned long long[::1] entries

cdef class PortMap:
    cdef list _parts
    cdef unsigned long long _seed

    @cython.locals(hashed=cython.ulonglong, part=_Ports, place=cython.longlong)
    cpdef int get(self, unsigned long long number) except -1
    @cython.locals(hashed=cython.ulonglong, part=_Ports, place=cython.ulonglong)
    cpdef void add(self, unsigned long long number, unsigned long long port) except *
    @cython.locals(hashed=cython.ulonglong, part=_Ports, place=cython.longlong)
    cpdef void remove(self, unsigned long long number) except *
    @cython.locals(place=cython.ulonglong)
    cdef long long _place(
        self, _Ports part, unsigned long long hashed, unsigned long long number
    ) except -2
