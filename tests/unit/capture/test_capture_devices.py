"""Devices, own addresses and the right to capture, as this machine has them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tcpcopy.capture import devices, rtnetlink
from tcpcopy.errors import UsageError


def test_all_devices() -> None:
    """No name, an empty one, or "any" wherever it stands."""
    assert devices.check_devices([]) == []
    assert devices.check_devices([""]) == []
    assert devices.check_devices(["any"]) == []
    assert devices.check_devices(["lo", "any"]) == []


def test_named_devices_come_once_and_in_order() -> None:
    assert devices.check_devices(["lo"]) == ["lo"]
    assert devices.check_devices([" lo ", "lo", ""]) == ["lo"]


def test_unknown_device() -> None:
    with pytest.raises(UsageError) as caught:
        devices.check_devices(["lo", "eth99x"])
    assert caught.value.option == "-i" and caught.value.value == "eth99x"
    for _, name in socket.if_nameindex():
        assert name in caught.value.hint
    with pytest.raises(UsageError, match="there is no such device"):
        devices.check_devices(["a name longer than the kernel takes"])


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1", True),
        ("127.200.3.4", True),
        ("198.51.100.7", False),
        ("255.255.255.255", False),
        ("::1", True),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_is_local_address(text: str, local: bool) -> None:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    assert devices.is_local_address(socket.inet_pton(family, text)) == local


def test_local_addresses() -> None:
    """Each configured address is one that stays on this host, the loopback's among them."""
    addresses = devices.local_addresses()
    assert socket.inet_aton("127.0.0.1") in addresses
    for address in addresses:
        if address[:2] != b"\xfe\x80":  # link-local: depends on the device
            assert devices.is_local_address(address)


def test_bad_address() -> None:
    with pytest.raises(ValueError, match="not an address"):
        devices.is_local_address(b"")


def test_links_are_those_of_the_system() -> None:
    links = rtnetlink.links()
    assert {(link.index, link.name) for link in links} == set(socket.if_nameindex())
    (loopback,) = [link for link in links if link.name == "lo"]
    assert (loopback.master, loopback.parent) == (0, 0)
    assert devices.overlapping(["lo"]) == []


_CHECK = """
import os
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
from tcpcopy.capture import devices
from tcpcopy.errors import UsageError
try:
    devices.check_privilege()
except UsageError as error:
    print(error)
"""


def test_without_the_privilege() -> None:
    """The line names what is missing and what to do."""
    import tcpcopy

    root = os.path.dirname(os.path.dirname(tcpcopy.__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", "from tcpcopy.capture import devices\n" + _CHECK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CAP_NET_RAW is missing" in done.stdout and "root" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_with_the_privilege() -> None:
    devices.check_privilege()


def test_short_queue_names_figures_and_mend() -> None:
    """The kernel doubles what it grants; half of that is still what was asked for."""
    assert devices.short_queue(64 << 20, 32 << 20) == ""
    assert devices.short_queue(32 << 20, 32 << 20) == ""
    line = devices.short_queue(425_984, 32 << 20)
    assert "416 KiB instead of 65536 KiB" in line
    assert "CAP_NET_ADMIN" in line and "net.core.rmem_max=33554432" in line
    assert "\n" not in line
