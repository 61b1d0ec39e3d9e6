"""What can be captured here: devices, own addresses, the right to capture."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from tcpcopy.capture import rtnetlink
from tcpcopy.errors import UsageError

ANY_DEVICE = "any"


def check_devices(names: Sequence[str]) -> list[str]:
    """Return the devices to capture, each once; an empty list means all of them.

    `names` is what -i gave; no name, or "any" among them, means all devices.
    Raises UsageError, naming the devices there are, when one does not exist.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not wanted or ANY_DEVICE in wanted:
        return []
    existing = [name for _, name in socket.if_nameindex()]
    for name in wanted:
        if name not in existing:
            hint = f"there are {', '.join(sorted(existing))}, and `any`"
            raise UsageError("-i", name, "there is no such device", hint)
    return wanted


def overlapping(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs (lower, upper) of named devices that see the same packets.

    The lower one is a port of the upper one, or carries it (a VLAN on its parent), directly or
    through others. Capturing both means each such packet twice.
    """
    links = {link.index: link for link in rtnetlink.links()}
    uppers: dict[int, set[int]] = {}
    for link in links.values():
        if link.master in links:
            uppers.setdefault(link.index, set()).add(link.master)
        # Two ends of a veth pair name each other: neither stands on the other.
        if link.parent in links and links[link.parent].parent != link.index:
            uppers.setdefault(link.parent, set()).add(link.index)
    pairs = []
    for link in links.values():
        reached: set[int] = set()
        pending = set(uppers.get(link.index, ()))
        while pending:
            upper = pending.pop()
            reached.add(upper)
            pending |= uppers.get(upper, set()) - reached
        if link.name in names:
            pairs += [(link.name, links[i].name) for i in sorted(reached) if links[i].name in names]
    return pairs


def local_addresses() -> set[bytes]:
    """Return the addresses configured on this host, 4 or 16 bytes each."""
    return rtnetlink.local_addresses()


def is_local_address(address: bytes) -> bool:
    """Return whether packets for this address (4 or 16 bytes) stay on this host.

    All of 127.0.0.0/8 does, and whatever a local route covers.
    """
    return rtnetlink.delivers_locally(address)


def short_queue(granted_bytes: int, asked_bytes: int) -> str:
    """Return what is wrong, and its mend, when rings got less room than they asked for; or "".

    `granted_bytes` is `Ring.queue_bytes`, which is twice `asked_bytes` when all was granted.
    """
    if granted_bytes >= asked_bytes:
        return ""
    return (
        f"packets above 2 KiB (offloaded uploads) queue in {granted_bytes >> 10} KiB instead of "
        f"{asked_bytes >> 9} KiB, and what does not fit is cut: give CAP_NET_ADMIN, or "
        f"`sysctl -w net.core.rmem_max={asked_bytes}`"
    )


def check_privilege() -> None:
    """Raise UsageError unless this process may open a packet socket."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            hint = "run as root, or `setcap cap_net_raw,cap_net_admin+ep` on the interpreter"
            raise UsageError("capture", None, "CAP_NET_RAW is missing", hint) from None
        hint = "use a Linux kernel with CONFIG_PACKET"
        raise UsageError("capture", None, f"no packet socket ({error.strerror})", hint) from None
