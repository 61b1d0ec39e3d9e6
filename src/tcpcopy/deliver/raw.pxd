from tcpcopy.deliver.batches cimport BatchSender
from tcpcopy.packet.batch cimport PacketBatch

import cython

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <netinet/in.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>

    #define TCPCOPY_RUN 64

    /* Sends packets index..count-1 as far as they are of one IP version, in one call.
       Returns how many were sent, or the negative errno of the first. */
    static int tcpcopy_send_run(int fd_v4, int fd_v6, unsigned char *base, Py_ssize_t slot,
                                const int *lengths, Py_ssize_t index, Py_ssize_t count) {
        struct mmsghdr messages[TCPCOPY_RUN];
        struct iovec vectors[TCPCOPY_RUN];
        struct sockaddr_in6 addresses[TCPCOPY_RUN];
        int version = base[index * slot] >> 4;
        int fd = version == 4 ? fd_v4 : fd_v6;
        unsigned int n = 0;
        int sent;
        if (fd < 0)
            return -EAFNOSUPPORT;
        memset(messages, 0, sizeof(messages));
        while (index < count && n < TCPCOPY_RUN) {
            unsigned char *packet = base + index * slot;
            if (packet[0] >> 4 != version)
                break;
            memset(&addresses[n], 0, sizeof(addresses[n]));
            if (version == 4) {
                struct sockaddr_in *to = (struct sockaddr_in *)&addresses[n];
                to->sin_family = AF_INET;
                memcpy(&to->sin_addr, packet + 16, 4);
                messages[n].msg_hdr.msg_namelen = sizeof(struct sockaddr_in);
            } else {
                addresses[n].sin6_family = AF_INET6;
                memcpy(&addresses[n].sin6_addr, packet + 24, 16);
                messages[n].msg_hdr.msg_namelen = sizeof(struct sockaddr_in6);
            }
            vectors[n].iov_base = packet;
            vectors[n].iov_len = (size_t)lengths[index];
            messages[n].msg_hdr.msg_name = &addresses[n];
            messages[n].msg_hdr.msg_iov = &vectors[n];
            messages[n].msg_hdr.msg_iovlen = 1;
            n++;
            index++;
        }
        sent = sendmmsg(fd, messages, n, MSG_DONTWAIT);
        return sent < 0 ? -errno : sent;
    }
    """
    int send_run "tcpcopy_send_run"(
        int fd_v4,
        int fd_v6,
        unsigned char *base,
        Py_ssize_t slot,
        const int *lengths,
        Py_ssize_t index,
        Py_ssize_t count,
    ) noexcept

cdef class RawSender(BatchSender):
    cdef public int fd_v4
    cdef public int fd_v6
    cdef public list sockets

    cdef int _send_from(self, PacketBatch batch, Py_ssize_t index) except? -9999
    cdef int _mended(self, int code) except -1
