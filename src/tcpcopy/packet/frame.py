"""What is found out about a frame on the way to the IP packet in it."""

from __future__ import annotations

# Where a frame has no IP packet to hand on.
NOT_IP = -1  # ARP, LLC and whatever else is no IP
SHORT = -2  # cut within the headers, or empty
UNKNOWN_LINK = -3  # a link type that cannot be read

# What identifies a virtual network; the first argument of `enter`.
VLAN, SERVICE, LABEL, VNI, KEY, TUNNEL_ID = 1, 2, 3, 4, 5, 6

# Encapsulations that were recognised and could not be read: a number in `Frame.unread`.
(
    GRE,
    ERSPAN,
    VXLAN,
    VXLAN_GPE,
    GENEVE,
    GTP,
    TEREDO,
    TZSP,
    IP_IN_IP,
    ETHER_IP,
    L2TP,
    ESP,
    IPCOMP,
    MACSEC,
    MPLS,
    NSH,
    PPP,
    WIRELESS_SECRET,
    WIRELESS_PARTS,
    WIRELESS_SEVERAL,
    WIRELESS_DAMAGED,
    DEEP,
) = range(1, 23)
UNREAD_NAMES = (
    "",
    "GRE",
    "ERSPAN",
    "VXLAN",
    "VXLAN-GPE",
    "GENEVE",
    "GTP-U",
    "Teredo",
    "TZSP",
    "IP in IP",
    "EtherIP",
    "L2TP",
    "ESP (encrypted)",
    "IPComp (compressed)",
    "MACsec (encrypted)",
    "MPLS",
    "NSH",
    "PPP (compressed or multilink)",
    "802.11 (encrypted)",
    "802.11 (in fragments)",
    "802.11 (several packets in a frame)",
    "802.11 (damaged)",
    "tunnels within tunnels, too many",
)
UNREAD_SLOTS = len(UNREAD_NAMES)

_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 62) - 1


class Frame:
    """The account of one frame; the reader of a file or device has one and uses it again."""

    __slots__ = (
        "end",  # where the captured bytes of the packet end that was found last
        "kind",  # for `links`: the EtherType behind the header read last
        "may_be_cut",  # for `tunnels`: the inner packet may be longer than what carries it
        "network",  # its virtual network: 0 for none, else a number made of all identifiers
        "unread",  # an encapsulation that was met and could not be read; 0: none
        "wire_end",  # where that packet ended on the wire, in the same count as `end`
    )

    def __init__(self) -> None:
        self.end = 0
        self.kind = 0
        self.may_be_cut = 0
        self.network = 0
        self.unread = 0
        self.wire_end = 0

    def enter(self, kind: int, number: int) -> None:
        """The packet is in a virtual network, within those entered before."""
        mixed = ((self.network ^ (kind << 32 | number)) + 1) * _MULTIPLIER
        self.network = (mixed ^ ((mixed & _MASK) >> 29)) & _MASK
        if self.network == 0:
            self.network = 1
