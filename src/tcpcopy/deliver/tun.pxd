from tcpcopy.deliver.batches cimport BatchSender
from tcpcopy.packet.batch cimport PacketBatch, PacketSink
from tcpcopy.packet.handler cimport PacketHandler

import cython

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <linux/virtio_net.h>
    #include <string.h>
    #include <sys/uio.h>
    #include <unistd.h>

    /* How the kernel is to cut a packet whose headers are so long. */
    static void tcpcopy_tun_cut(struct virtio_net_hdr *how, const unsigned char *packet,
                                int header, int size) {
        int is_v4 = packet[0] >> 4 == 4;
        how->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        how->gso_type = is_v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        how->hdr_len = (__virtio16)header;
        how->gso_size = (__virtio16)size;
        how->csum_start = (__virtio16)(is_v4 ? 20 : 40);
        how->csum_offset = 16;
    }

    static int tcpcopy_tun_write_one(int fd, const unsigned char *packet, Py_ssize_t length) {
        static const struct virtio_net_hdr whole;
        struct iovec vectors[2];
        vectors[0].iov_base = (void *)&whole;
        vectors[0].iov_len = sizeof(whole);
        vectors[1].iov_base = (void *)packet;
        vectors[1].iov_len = (size_t)length;
        return writev(fd, vectors, 2) < 0 ? -errno : 0;
    }

    /* Writes packets index..count-1, up to the first that fails.
       Returns how many went, or the negative errno of the first. */
    static int tcpcopy_tun_write(int fd, unsigned char *base, Py_ssize_t slot, const int *lengths,
                                 Py_ssize_t index, Py_ssize_t count, const int *sizes,
                                 PyObject *payloads, const int *payload_at,
                                 const int *payload_lengths) {
        int sent = 0;
        while (index < count) {
            unsigned char *packet = base + index * slot;
            struct virtio_net_hdr how;
            struct iovec vectors[3];
            int n = 2;
            memset(&how, 0, sizeof(how));
            vectors[0].iov_base = &how;
            vectors[0].iov_len = sizeof(how);
            vectors[1].iov_base = packet;
            vectors[1].iov_len = (size_t)lengths[index];
            if (sizes[index]) {
                char *payload = PyBytes_AS_STRING(PyList_GET_ITEM(payloads, index));
                tcpcopy_tun_cut(&how, packet, lengths[index], sizes[index]);
                vectors[2].iov_base = payload + payload_at[index];
                vectors[2].iov_len = (size_t)payload_lengths[index];
                n = 3;
            }
            if (writev(fd, vectors, n) < 0)
                return sent ? sent : -errno;
            sent++;
            index++;
        }
        return sent;
    }

    static int tcpcopy_tun_read(int fd, unsigned char *buffer, Py_ssize_t size) {
        ssize_t count = read(fd, buffer, (size_t)size);
        return count < 0 ? -errno : (int)count;
    }
    """
    int tun_write "tcpcopy_tun_write"(
        int fd,
        unsigned char *base,
        Py_ssize_t slot,
        const int *lengths,
        Py_ssize_t index,
        Py_ssize_t count,
        const int *sizes,
        list payloads,
        const int *payload_at,
        const int *payload_lengths,
    ) noexcept
    int tun_write_one "tcpcopy_tun_write_one"(
        int fd, const unsigned char *packet, Py_ssize_t length
    ) noexcept
    int tun_read "tcpcopy_tun_read"(int fd, unsigned char *buffer, Py_ssize_t size) noexcept

cdef Py_ssize_t HEADER_BYTES
cdef int _TCP

cdef class TunDevice(BatchSender):
    cdef public object buffer
    cdef public bint cuts
    cdef public int failed
    cdef public int fd
    cdef public int index
    cdef public object name
    cdef public PacketHandler others
    cdef public long long received
    cdef unsigned char[::1] view

    @cython.locals(result=cython.int)
    cpdef int send(
        self, const unsigned char[::1] packet, Py_ssize_t start, Py_ssize_t end
    ) except -1
    cdef int _given_up(self, PacketBatch batch, Py_ssize_t index, int code) except -1
    cdef int _send_from(self, PacketBatch batch, Py_ssize_t index) except? -9999
    @cython.locals(
        handed=cython.Py_ssize_t,
        count=cython.int,
        at=cython.Py_ssize_t,
        version=cython.int,
        protocol=cython.int,
        length=cython.Py_ssize_t,
        end=cython.Py_ssize_t,
    )
    cpdef Py_ssize_t drain(
        self, PacketHandler handler, Py_ssize_t limit, long long timestamp_ns
    ) except -1
    cdef int _read(self) except? -9999

cdef class TunDatagrams(PacketSink):
    cdef public dict errors
    cdef public list failures
    cdef public TunDevice tun

    @cython.locals(tun=TunDevice, errors=dict)
    cpdef void send_batch(self, PacketBatch batch)
