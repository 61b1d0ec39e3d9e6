from tcpcopy.packet.handler cimport PacketHandler

import cython

cdef extern from *:
    """
    #include <Python.h>
    #include <errno.h>
    #include <sys/socket.h>

    static Py_ssize_t tcpcopy_read_into(int descriptor, unsigned char *at, Py_ssize_t room) {
        Py_ssize_t count = recv(descriptor, at, (size_t)room, MSG_DONTWAIT);
        return count < 0 ? -errno : count;
    }

    static Py_ssize_t tcpcopy_write_from(int descriptor, unsigned char *at, Py_ssize_t count) {
        Py_ssize_t sent = send(descriptor, at, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);
        return sent < 0 ? -errno : sent;
    }
    """
    Py_ssize_t write_from "tcpcopy_write_from"(
        int descriptor, unsigned char *at, Py_ssize_t count
    ) noexcept
    Py_ssize_t read_into "tcpcopy_read_into"(
        int descriptor, unsigned char *at, Py_ssize_t room
    ) noexcept

cdef Py_ssize_t _EAGAIN
cdef Py_ssize_t _EINTR
cdef int _READS
cdef Py_ssize_t _DOUBTFUL_BYTES

cdef Py_ssize_t _RECORD_BYTES
cdef Py_ssize_t _PAYLOAD_RECORD_BYTES
cdef int _MAX_BATCH
cdef int _MAX_PAYLOAD_BATCH
cdef Py_ssize_t _MAX_TRANSPORT_BYTES
cdef Py_ssize_t _MAX_PAYLOAD_BYTES
cdef int _NONE
cdef int _BATCH_COUNT
cdef int _NOT_A_RECORD
cdef Py_ssize_t _UNKNOWN
cdef Py_ssize_t _FIRST_SEEN

cdef void _put8(unsigned char[::1] view, Py_ssize_t at, Py_ssize_t value) noexcept
cdef void _put16(unsigned char[::1] view, Py_ssize_t at, Py_ssize_t value) noexcept


cdef class RecordDecoder:
    cdef Py_ssize_t _batched
    cdef object _buffer
    cdef Py_ssize_t _filled
    cdef PacketHandler _handler
    cdef int _remaining
    cdef Py_ssize_t _start
    cdef unsigned char[::1] _view
    cdef Py_ssize_t _record
    cdef readonly long long batches
    cdef readonly int fault
    cdef readonly long long malformed
    cdef readonly long long records

    cpdef void hand_to(self, PacketHandler handler) except *
    cpdef object space(self)
    @cython.locals(unread=cython.Py_ssize_t)
    cdef void _compact(self) except *
    @cython.locals(room=cython.Py_ssize_t, count=cython.Py_ssize_t, _=cython.int)
    cpdef Py_ssize_t read(self, int descriptor, long long timestamp_ns) except? -9999
    cdef Py_ssize_t _read_once(self, int descriptor, Py_ssize_t room) except? -9999
    cpdef Py_ssize_t received(self, Py_ssize_t count, long long timestamp_ns) except -1
    @cython.locals(handed=cython.Py_ssize_t, needed=cython.Py_ssize_t)
    cdef Py_ssize_t _unpack(self, long long timestamp_ns) except -1
    @cython.locals(available=cython.Py_ssize_t, first=cython.int, count=cython.int)
    cdef int _begin_batch(self) except -1
    cdef int _largest_batch(self) except -1
    @cython.locals(
        at=cython.Py_ssize_t,
        counted=cython.Py_ssize_t,
        rest=cython.Py_ssize_t,
        follows=cython.int,
        count=cython.int,
    )
    cdef int _tell_record_bytes(self) except -1
    @cython.locals(
        view=cython.uchar[::1], first=cython.int, total=cython.int, headers=cython.int
    )
    cdef int _is_record(self, Py_ssize_t at) except -1
    @cython.locals(
        view=cython.uchar[::1],
        network=cython.Py_ssize_t,
        transport=cython.Py_ssize_t,
        total=cython.Py_ssize_t,
    )
    cdef int _hand_on(self, Py_ssize_t at, long long timestamp_ns) except -1
    @cython.locals(
        view=cython.uchar[::1], kind=cython.int, size=cython.Py_ssize_t, blocks=cython.Py_ssize_t
    )
    cdef int _cut_options(self, Py_ssize_t at, Py_ssize_t end) except -1


cdef class Peer:
    cdef readonly str address
    cdef readonly long long limit
    cdef public long long own
    cdef public long long refused
    cdef public long long sessions
    cdef public long long taken


cdef class RecordWriter:
    cdef Py_ssize_t _batch_at
    cdef int _batch_count
    cdef int _batch_records
    cdef int _batched
    cdef object _buffer
    cdef long long _counts
    cdef bytearray _doubtful
    cdef Py_ssize_t _filled
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _record
    cdef Py_ssize_t _sent
    cdef unsigned char[::1] _view
    cdef readonly bint closed
    cdef readonly long long identity
    cdef readonly long long lost
    cdef readonly Peer peer
    cdef public bint queued
    cdef readonly long long records
    cdef public long long repeats
    cdef public bint unsure
    cdef readonly bint went_bare

    @cython.locals(
        view=cython.uchar[::1],
        at=cython.Py_ssize_t,
        network=cython.Py_ssize_t,
        tcp=cython.Py_ssize_t,
        transport=cython.Py_ssize_t,
        total=cython.Py_ssize_t,
        copied=cython.Py_ssize_t,
        payload=cython.Py_ssize_t,
        offset=cython.Py_ssize_t,
    )
    cpdef int append(
        self,
        const unsigned char[::1] data,
        Py_ssize_t start,
        Py_ssize_t end,
        long long destination=*,
        Py_ssize_t wire_length=*,
        long long timestamp_ns=*
    ) except -1
    cpdef Py_ssize_t sendable(self) except -1
    @cython.locals(room=cython.Py_ssize_t, count=cython.Py_ssize_t)
    cpdef Py_ssize_t write(self, int descriptor) except? -9999
    cdef Py_ssize_t _write_once(self, int descriptor, Py_ssize_t room) except? -9999
    cpdef void sent(self, Py_ssize_t count) noexcept
    cpdef void understood(self) except *
    @cython.locals(
        over=cython.Py_ssize_t, room=cython.Py_ssize_t, at=cython.Py_ssize_t, more=bytes
    )
    cpdef void go_bare(self) except *
    @cython.locals(counted=cython.Py_ssize_t, at=cython.Py_ssize_t)
    cdef Py_ssize_t _reserve(self) except -2
    @cython.locals(pending=cython.Py_ssize_t, size=cython.Py_ssize_t)
    cdef int _make_room(self, Py_ssize_t needed) except -1
