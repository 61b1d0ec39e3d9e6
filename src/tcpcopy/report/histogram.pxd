cimport cython

@cython.locals(shift=Py_ssize_t)
cpdef Py_ssize_t bucket_of(long long value) except -1

cdef class Histogram:
    cdef unsigned long long[::1] _view
    cdef readonly object buckets
    cdef public long long count
    cdef public long long total
    cdef public long long smallest
    cdef public long long largest

    cpdef record(self, long long value)
    cpdef add(self, Histogram other)
