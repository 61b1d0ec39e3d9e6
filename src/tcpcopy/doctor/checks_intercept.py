"""What intercept needs of its host: that it does not forward, and can be reached."""

from __future__ import annotations

from tcpcopy.doctor.checks_capture import named_ports
from tcpcopy.doctor.checks_firewall import check_served_here, drops_forwarded
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts
from tcpcopy.doctor.plan import InterceptPlan

_FORWARD, _LISTEN, _REVERSE_PATH, _OPEN = "ip_forward", "listen", "rp_filter", "open_relay"
_LOOPBACK_KIND = 772  # ARPHRD_LOOPBACK
_STRICT = 1


def check_forwarding(plan: InterceptPlan, network: NetworkFacts) -> list[Finding]:
    """Answers must end here: passed on, they reach the real clients, which reset them.

    What counts is the setting of the device that they arrive by.
    """
    if plan.uses_tun:
        return []
    devices = plan.devices or tuple(
        link.name for link in network.links if link.kind != _LOOPBACK_KIND and link.is_up
    )
    v4 = [d for d in devices if network.number(f"net/ipv4/conf/{d}/forwarding")]
    findings = []
    if v4:
        whole = network.number("net/ipv4/ip_forward") != 0
        names = ["net.ipv4.ip_forward"] if whole else [_dotted("ipv4", d) for d in v4]
        text = f"{names[0]} is 1: this host passes the answers on to the real clients"
        steps = tuple(network.here(f"sysctl -w {name}=0") for name in names)
        if drops_forwarded(network):
            text = f"{names[0]} is 1, but the firewall drops all that is forwarded"
            findings.append(Finding(_FORWARD, Level.NOTE, text, steps))
        else:
            findings.append(Finding(_FORWARD, Level.FAULT, text, steps))
    v6 = network.number("net/ipv6/conf/all/forwarding")
    if v6:
        text = "net.ipv6.conf.all.forwarding is 1: answers to IPv6 clients are passed on to them"
        step = network.here("sysctl -w net.ipv6.conf.all.forwarding=0")
        findings.append(Finding(_FORWARD, Level.WARNING, text, (step,)))
    return findings or [Finding(_FORWARD, Level.OK, "this host forwards nothing")]


def _dotted(family: str, device: str) -> str:
    """A device's setting as sysctl(8) wants it: a dot in its name is written as a slash."""
    return f"net.{family}.conf.{device.replace('.', '/')}.forwarding"


def check_listening(plan: InterceptPlan, network: NetworkFacts) -> list[Finding]:
    """The address and port that tcpcopies connect to."""
    where = f"{plan.host or 'all addresses'} port {plan.port}"
    problem = network.bind_problem
    if not problem:
        return [Finding(_LISTEN, Level.OK, where)]
    if plan.port in network.listening:
        steps = (
            network.here(f"ss -ltnp 'sport = :{plan.port}'"),
            f"on this host: intercept ... -p {plan.port + 1 if plan.port < 65535 else 36524}",
        )
        text = f"{where} is taken by another program"
        return [Finding(_LISTEN, Level.FAULT, text, steps)]
    text = f"{where} cannot be listened on: {problem}"
    return [Finding(_LISTEN, Level.FAULT, text, (network.here("ip address"),))]


def check_open(plan: InterceptPlan) -> list[Finding]:
    """Whom it lets connect."""
    if not plan.is_open:
        return [Finding(_OPEN, Level.OK, "the relay is for those who prove or are named")]
    where = f"port {plan.port} of {plan.host or 'any address of this host'}"
    text = (
        f"the relay is open: whoever reaches {where} may announce sessions and have the headers of"
        " the answers that are captured"
    )
    steps = (
        "on this host: (umask 077; openssl rand -hex 32 > tcpcopy.secret); intercept ..."
        " --secret-file tcpcopy.secret, and tcpcopy ... with a copy of that file",
        "on this host: or intercept ... --allow ADDRESS_OF_ONLINE -b ADDRESS_OF_THIS_HOST",
    )
    return [Finding(_OPEN, Level.WARNING, text, steps)]


def check_target_here(plan: InterceptPlan, network: NetworkFacts) -> list[Finding]:
    """Where the target's server runs on this very host, what a target needs is checked, too."""
    ports = [port for port in named_ports(plan.filter_text) if port in network.listening]
    if not ports or plan.uses_tun:
        return []
    shown = ", ".join(map(str, ports))
    findings = [
        Finding("target_here", Level.NOTE, f"a server listens on port {shown}: this is a target")
    ]
    findings += _reverse_path(network)
    findings += check_served_here(ports, network)
    return findings


def _reverse_path(network: NetworkFacts) -> list[Finding]:
    """With rp_filter=1 a packet must come in by the device that its answer would leave by.

    Of `all` and the device's own the larger counts. One device cannot be the wrong one.
    Source: Linux ip-sysctl.rst.
    """
    everywhere = network.number("net/ipv4/conf/all/rp_filter")
    addressed = {entry.device for entry in network.addresses if len(entry.address) == 4}
    devices = [
        link.name
        for link in network.links
        if link.is_up and link.kind != _LOOPBACK_KIND and link.index in addressed
    ]
    strict = [
        name
        for name in devices
        if max(everywhere, network.number(f"net/ipv4/conf/{name}/rp_filter")) == _STRICT
    ]
    if not strict or len(devices) < 2:
        return [Finding(_REVERSE_PATH, Level.OK, "packets of mapped clients are let in")]
    text = (
        f"rp_filter is 1 (strict) on {', '.join(strict)}: packets of mapped clients are thrown"
        " away, unless the route to the clients leads out by the device that they come in by"
    )
    steps = [network.here(f"sysctl -w net.ipv4.conf.{name.replace('.', '/')}.rp_filter=2")
             for name in strict]  # fmt: skip
    return [Finding(_REVERSE_PATH, Level.WARNING, text, tuple(steps))]
