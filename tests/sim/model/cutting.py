"""What a device does with a TCP segment that it is to cut (TCP segmentation offload), as a model.

Source: Linux segmentation-offloads.rst, tcp_offload.c (tcp_gso_segment): sequence numbers and
identifications count on, PSH and FIN stay on the last part only, checksums are made for each.
"""

from __future__ import annotations

import struct

from tests.sim.model.wire import internet_sum

_PSH_FIN = 0x09


def cut(packet: bytes, size: int) -> list[bytes]:
    """The packets that leave the device; `size` payload bytes in each but the last.

    The checksum of `packet` must be that of the pseudo header alone, as the kernel wants it.
    """
    is_v4 = packet[0] >> 4 == 4
    network = 20 if is_v4 else 40
    header = network + (packet[network + 12] >> 4) * 4
    length = len(packet) - network
    begun = int.from_bytes(packet[network + 16 : network + 18], "big")
    assert begun % 0xFFFF == internet_sum(_pseudo(packet, length)), "not the pseudo header's sum"
    payload = packet[header:]
    assert len(payload) > size > 0, "nothing to cut"
    identification = int.from_bytes(packet[4:6], "big")
    seq = int.from_bytes(packet[network + 4 : network + 8], "big")
    parts = []
    for number, at in enumerate(range(0, len(payload), size)):
        data = payload[at : at + size]
        head = bytearray(packet[:header])
        struct.pack_into("!I", head, network + 4, (seq + at) & 0xFFFFFFFF)
        struct.pack_into("!H", head, network + 16, 0)
        if at + size < len(payload):
            head[network + 13] &= ~_PSH_FIN
        if is_v4:
            struct.pack_into("!H", head, 2, header + len(data))
            struct.pack_into("!H", head, 4, (identification + number) & 0xFFFF)
            struct.pack_into("!H", head, 10, 0)
            struct.pack_into("!H", head, 10, ~internet_sum(bytes(head[:20])) & 0xFFFF)
        else:
            struct.pack_into("!H", head, 4, header - network + len(data))
        segment = bytes(head[network:]) + data
        total = internet_sum(_pseudo(bytes(head), len(segment)) + segment)
        struct.pack_into("!H", head, network + 16, ~total & 0xFFFF)
        parts.append(bytes(head) + data)
    return parts


def _pseudo(packet: bytes, length: int) -> bytes:
    """The pseudo header of a TCP segment so long (RFC 9293, 3.1)."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack("!BBH", 0, 6, length)
    return packet[8:40] + struct.pack("!IHBB", length, 0, 0, 6)
