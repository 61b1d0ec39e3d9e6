from tcpcopy.deliver.batches cimport BatchSender
from tcpcopy.packet.batch cimport PacketBatch

import cython

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <errno.h>
    #include <linux/if_ether.h>
    #include <linux/if_packet.h>
    #include <linux/virtio_net.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>

    #define TCPCOPY_FRAMES 64

    struct tcpcopy_hop {
        int error;  /* errno that packets are lost with, or 0 */
        unsigned short address_bytes;
        unsigned char port[2];
        unsigned char address[16];
        unsigned char header[14];
        unsigned char padding[2];
    };

    /* A fragment has its ports elsewhere, or none at all. */
    static int tcpcopy_is_fragment(const unsigned char *packet) {
        return packet[0] >> 4 == 4 ? (packet[6] & 0x3f) != 0 || packet[7] != 0 : packet[6] == 44;
    }

    /* The hop of a packet: that of its destination address and port, or of the address alone. */
    static const struct tcpcopy_hop *tcpcopy_find_hop(const struct tcpcopy_hop *hops,
                                                      Py_ssize_t hop_count,
                                                      const unsigned char *packet) {
        int is_v4 = packet[0] >> 4 == 4;
        const unsigned char *address = packet + (is_v4 ? 16 : 24);
        const unsigned char *port = packet + (is_v4 ? 22 : 42);
        unsigned short size = is_v4 ? 4 : 16;
        int any_port = tcpcopy_is_fragment(packet);
        Py_ssize_t i;
        for (i = 0; i < hop_count; i++)
            if (hops[i].address_bytes == size
                && (any_port || memcmp(hops[i].port, port, 2) == 0)
                && memcmp(hops[i].address, address, size) == 0)
                return hops + i;
        return NULL;
    }

    /* How the device is to cut a packet whose headers are so long. */
    static void tcpcopy_cut(struct virtio_net_hdr *how, const unsigned char *packet,
                            int header, int size) {
        int is_v4 = packet[0] >> 4 == 4;
        how->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        how->gso_type = is_v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        how->hdr_len = (__virtio16)(ETH_HLEN + header);
        how->gso_size = (__virtio16)size;
        how->csum_start = (__virtio16)(ETH_HLEN + (is_v4 ? 20 : 40));
        how->csum_offset = 16;
    }

    /* Sends packets index..count-1, up to the first without a way, in one call.
       Returns how many were sent, or the negative errno of the first. */
    static int tcpcopy_send_frames(int fd, int device, const unsigned char *table,
                                   Py_ssize_t hop_count, unsigned char *base, Py_ssize_t slot,
                                   const int *lengths, Py_ssize_t index, Py_ssize_t count,
                                   int cuts, const int *sizes, PyObject *payloads,
                                   const int *payload_at, const int *payload_lengths) {
        static const struct virtio_net_hdr whole;
        const struct tcpcopy_hop *hops = (const struct tcpcopy_hop *)table;
        struct mmsghdr messages[TCPCOPY_FRAMES];
        struct iovec vectors[TCPCOPY_FRAMES][4];
        struct virtio_net_hdr how[TCPCOPY_FRAMES];
        struct sockaddr_ll to[2];
        unsigned int n = 0;
        int error = EHOSTUNREACH;
        int sent;
        memset(messages, 0, sizeof(messages));
        memset(to, 0, sizeof(to));
        to[0].sll_family = to[1].sll_family = AF_PACKET;
        to[0].sll_ifindex = to[1].sll_ifindex = device;
        to[0].sll_protocol = htons(ETH_P_IP);
        to[1].sll_protocol = htons(ETH_P_IPV6);
        while (index < count && n < TCPCOPY_FRAMES) {
            unsigned char *packet = base + index * slot;
            const struct tcpcopy_hop *hop = tcpcopy_find_hop(hops, hop_count, packet);
            struct iovec *vector = vectors[n];
            if (hop == NULL || hop->error) {
                error = hop == NULL ? EHOSTUNREACH : hop->error;
                break;
            }
            if (cuts) {
                vector->iov_base = (void *)&whole;
                vector->iov_len = sizeof(whole);
                if (sizes[index]) {
                    tcpcopy_cut(how + n, packet, lengths[index], sizes[index]);
                    vector->iov_base = how + n;
                }
                vector++;
            }
            vector->iov_base = (void *)hop->header;
            vector->iov_len = sizeof(hop->header);
            vector++;
            vector->iov_base = packet;
            vector->iov_len = (size_t)lengths[index];
            vector++;
            if (sizes[index]) {
                char *payload = PyBytes_AS_STRING(PyList_GET_ITEM(payloads, index));
                vector->iov_base = payload + payload_at[index];
                vector->iov_len = (size_t)payload_lengths[index];
                vector++;
            }
            messages[n].msg_hdr.msg_name = &to[packet[0] >> 4 == 4 ? 0 : 1];
            messages[n].msg_hdr.msg_namelen = sizeof(to[0]);
            messages[n].msg_hdr.msg_iov = vectors[n];
            messages[n].msg_hdr.msg_iovlen = (size_t)(vector - vectors[n]);
            n++;
            index++;
        }
        if (n == 0)
            return -error;
        sent = sendmmsg(fd, messages, n, MSG_DONTWAIT);
        return sent < 0 ? -errno : sent;
    }
    """
    int send_frames "tcpcopy_send_frames"(
        int fd,
        int device,
        const unsigned char *table,
        Py_ssize_t hop_count,
        unsigned char *base,
        Py_ssize_t slot,
        const int *lengths,
        Py_ssize_t index,
        Py_ssize_t count,
        bint cuts,
        const int *sizes,
        list payloads,
        const int *payload_at,
        const int *payload_lengths,
    ) noexcept

cdef class LinkSender(BatchSender):
    cdef public bint cuts
    cdef public int device_index
    cdef public int fd
    cdef public Py_ssize_t hop_count
    cdef public object hops
    cdef public Py_ssize_t largest
    cdef public long long looked_ns
    cdef public long long packets
    cdef public int refusals
    cdef public object sender
    cdef public object table
    cdef unsigned char[::1] view

    cpdef void send_batch(self, PacketBatch batch)
    cdef int _given_up(self, PacketBatch batch, Py_ssize_t index, int code) except -1
    @cython.locals(result=cython.int)
    cdef int _send_from(self, PacketBatch batch, Py_ssize_t index) except? -9999
    cdef int _send_frames(self, PacketBatch batch, Py_ssize_t index) except? -9999
    cdef int _mended(self, int code) except -1
