import cython

from tcpcopy.mapping.places cimport mix

cdef unsigned long long _MASK
cdef unsigned long long _WIDE_MASK
cdef unsigned long long _FOLD
cdef Py_ssize_t _MOST

@cython.locals(wide=cython.ulonglong, byte=cython.uchar, number=cython.uint)
cpdef unsigned int initial_number(
    bytes source, bytes target, unsigned int ports, unsigned long long seed, long long now_ns
) except? 0
@cython.locals(options=bytearray, used=cython.Py_ssize_t, place=cython.int)
cpdef bytes syn_options(
    int mss, int sack, int timestamps, unsigned long long timestamp, int window_scale
)
