"""What a device does with segments by itself: whether, and of which size, it cuts large ones.

Source: linux/ethtool.h (ETHTOOL_GTSO), ioctl(2), Linux segmentation-offloads.rst; struct
virtio_net_hdr of the virtio specification 1.2 (5.1.6), in host byte order as packet(7) has it.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from tcpcopy.capture.rtnetlink import Link

_SIOCETHTOOL = 0x8946
_ETHTOOL_GTSO = 0x1E
_IFREQ = struct.Struct("@16sP16x")
_LARGEST_FRAME = 65_535
_HEADERS = 160  # Ethernet with tags, IPv6 and TCP with all options, and room to spare
_LEAST_SEGMENTS = 64  # the engine hands over no more in one packet
_HEADER = struct.Struct("@BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_NEEDS_CHECKSUM = 1
_TCP_IPV4, _TCP_IPV6 = 1, 4
_ETHERNET_BYTES = 14
_CHECKSUM_AT = 16  # in the TCP header

NO_HEADER = bytes(_HEADER.size)
"""What goes before a frame that is complete as it stands."""


def largest_payload(link: Link) -> int:
    """Return the most payload bytes of a TCP segment that the device cuts by itself; 0: it cuts
    none. Never raises: a device that does not say cuts none.
    """
    if not _segments(link.name) or link.gso_segments < _LEAST_SEGMENTS:
        return 0
    return max(0, min(link.gso_bytes, _LARGEST_FRAME) - _HEADERS)


def _segments(device: str) -> bool:
    """Whether TCP segmentation offload is on."""
    value = array.array("I", (_ETHTOOL_GTSO, 0))
    request = _IFREQ.pack(device.encode(), value.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    except OSError:
        return False
    return value[1] != 0


def cutting_header(
    is_v4: bool, header_bytes: int, segment_size: int, link_bytes: int = _ETHERNET_BYTES
) -> bytes:
    """Return the header before a frame to be cut: `header_bytes` are its IP and TCP headers.

    `link_bytes`: what stands before these.
    """
    return _HEADER.pack(
        _NEEDS_CHECKSUM,
        _TCP_IPV4 if is_v4 else _TCP_IPV6,
        link_bytes + header_bytes,
        segment_size,
        link_bytes + (20 if is_v4 else 40),
        _CHECKSUM_AT,
    )
