import cython

from tcpcopy.engine.timers cimport Timed

cdef int _DATA
cdef int _FIN
cdef long long _COST

cdef class Chunk:
    cdef public long long captured_ns
    cdef public bytes data
    cdef public long long end
    cdef public Chunk following
    cdef public int kind
    cdef public long long offset
    cdef public long long server_offset

@cython.locals(chunk=Chunk)
cpdef Chunk make_chunk(
    int kind, bytes data, long long offset, long long server_offset, long long captured_ns
)

cdef class ChunkQueue(Timed):
    cdef public Chunk gate
    cdef public Chunk head
    cdef public long long queued_bytes
    cdef public long long released_end
    cdef public Chunk tail
    cdef public unsigned char fin_released
    cdef public unsigned char rst_released

    cdef void set_up_queue(self) except *
    cpdef void append(self, Chunk chunk) except *
    @cython.locals(chunk=Chunk)
    cpdef void release(self) except *
    @cython.locals(dropped=cython.longlong)
    cpdef long long acknowledge(self, long long offset) except -1
    @cython.locals(chunk=Chunk)
    cpdef Chunk find(self, long long offset)
    cpdef Chunk at_or_after(self, Chunk cursor, long long offset)
    @cython.locals(dropped=cython.longlong, chunk=Chunk, after=Chunk)
    cpdef long long clear(self) except -1
