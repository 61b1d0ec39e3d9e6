from libc.string cimport memcpy

from tcpcopy.engine.flow cimport DatagramCounts, DatagramOutput, Leg

import cython

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>

    #define TCPCOPY_DATAGRAMS 64

    /* Sends datagrams at..size-1 of a group; how many went, or the negative errno of the first. */
    static int tcpcopy_send_datagrams(int fd, unsigned char *base, const int *offsets,
                                      const int *lengths, Py_ssize_t at, Py_ssize_t size) {
        struct mmsghdr messages[TCPCOPY_DATAGRAMS];
        struct iovec vectors[TCPCOPY_DATAGRAMS];
        unsigned int n = 0;
        int sent;
        if (size - at == 1) {
            ssize_t taken = send(fd, base + offsets[at], (size_t)lengths[at], MSG_DONTWAIT);
            return taken < 0 ? -errno : 1;
        }
        if (size - at > TCPCOPY_DATAGRAMS)
            size = at + TCPCOPY_DATAGRAMS;
        memset(messages, 0, (size_t)(size - at) * sizeof(messages[0]));
        for (; at < size; at++, n++) {
            vectors[n].iov_base = base + offsets[at];
            vectors[n].iov_len = (size_t)lengths[at];
            messages[n].msg_hdr.msg_iov = &vectors[n];
            messages[n].msg_hdr.msg_iovlen = 1;
        }
        sent = sendmmsg(fd, messages, n, MSG_DONTWAIT);
        return sent < 0 ? -errno : sent;
    }

    /* Takes the next datagram and throws it away; its length, or a negative errno. */
    static int tcpcopy_receive_length(int fd) {
        char byte;
        ssize_t length = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC);
        return length < 0 ? -errno : (int)length;
    }
    """
    int send_datagrams "tcpcopy_send_datagrams"(
        int fd,
        unsigned char *base,
        const int *offsets,
        const int *lengths,
        Py_ssize_t at,
        Py_ssize_t size,
    ) noexcept
    int receive_length "tcpcopy_receive_length"(int fd) noexcept

cdef int _SEND_FAILED
cdef int _AGAIN
cdef Py_ssize_t _ARENA_BYTES
cdef Py_ssize_t _MOST_QUEUED
cdef int _ANSWERS_AT_ONCE
cdef int _TRIES
cdef int _E_AGAIN
cdef int _E_NO_BUFFERS
cdef int _E_INTERRUPTED
cdef int _E_TOO_LONG
cdef int _E_REFUSED
cdef int _E_UNCONNECTED

cdef class DatagramSockets(DatagramOutput):
    cdef dict _by_fd
    cdef int[::1] _group_lengths
    cdef int[::1] _group_offsets
    cdef int[::1] _lengths
    cdef list _legs
    cdef int[::1] _offsets
    cdef long long _opened
    cdef object _poll
    cdef Py_ssize_t _queued
    cdef object _scratch
    cdef Py_ssize_t _used
    cdef unsigned char[::1] _view
    cdef public object arena
    cdef public DatagramCounts counts
    cdef public tuple local_addresses
    cdef public long long now_ns
    cdef public object on_answer

    cdef void _open(self, Leg leg) except *
    @cython.locals(leg=Leg, first=cython.Py_ssize_t, place=cython.Py_ssize_t, size=cython.int)
    cpdef void flush(self) except *
    @cython.locals(
        done=cython.Py_ssize_t,
        index=cython.Py_ssize_t,
        tries=cython.int,
        result=cython.int,
        code=cython.int,
    )
    cdef void _send_group(self, Leg leg, Py_ssize_t size) except *
    cdef int _send_from(self, Leg leg, Py_ssize_t at, Py_ssize_t size) except? -9999
    cdef void _wait(self, Leg leg) except *
    @cython.locals(leg=Leg)
    cpdef int service(self) except -1
    @cython.locals(result=cython.int, code=cython.int)
    cdef void _receive(self, Leg leg) except *
    cdef int _receive_one(self, Leg leg) except? -9999

cdef void _copy(
    unsigned char[::1] view,
    Py_ssize_t at,
    const unsigned char[::1] data,
    Py_ssize_t data_at,
    Py_ssize_t length,
) noexcept
