"""Rights: what is missing is named, with the way to it."""

from __future__ import annotations

import pytest

from tcpcopy.doctor.checks_privilege import check_intercept_privilege, check_privilege
from tcpcopy.doctor.finding import Level
from tcpcopy.doctor.host_facts import CAP_NET_ADMIN, CAP_NET_RAW
from tcpcopy.doctor.plan import InterceptPlan
from tcpcopy.report.context import CLASSIC, LINK, LOCAL, SOCKET
from tests.unit.doctor.made import levels, network, plan, process, said

DENIED = "Operation not permitted"
NOTHING = {"is_root": False, "capabilities": 0}


@pytest.mark.parametrize("mode", [SOCKET, CLASSIC, LINK, LOCAL])
def test_root_has_what_each_mode_needs(mode: str) -> None:
    here = network()
    assert levels(check_privilege(plan(mode), process(), here, here)) == {"privilege": Level.OK}


@pytest.mark.parametrize(
    ("mode", "is_recorded", "denied", "expected"),
    [
        (SOCKET, False, "capture_problem", "to capture on devices"),
        (CLASSIC, True, "raw_problem", "to send packets with client addresses"),
        (LINK, True, "capture_problem", "to send frames"),
    ],
)
def test_what_is_missing_is_named(mode: str, is_recorded: bool, denied: str, expected: str) -> None:
    here = network(**{denied: DENIED})
    found = check_privilege(
        plan(mode, is_recorded=is_recorded), process(**NOTHING, interpreter="/opt/py"), here, here
    )
    assert levels(found) == {"privilege": Level.FAULT}
    assert "CAP_NET_RAW is missing" in said(found) and expected in said(found)
    assert "on this host: sudo setcap cap_net_raw+ep /opt/py" in found[0].remedy


def test_files_in_socket_mode_need_nothing() -> None:
    here = network(capture_problem=DENIED, raw_problem=DENIED)
    found = check_privilege(plan(SOCKET, is_recorded=True), process(**NOTHING), here, here)
    assert found[0].level is Level.OK and "none is needed" in found[0].text


def test_a_container_is_told_how_it_gets_the_right() -> None:
    """What is not in the bounding set no file can give."""
    here = network(capture_problem=DENIED)
    bounded = process(**NOTHING, bounding=((1 << 41) - 1) & ~(1 << CAP_NET_RAW))
    (found,) = check_privilege(plan(SOCKET), bounded, here, here)
    assert "--cap-add=NET_RAW" in said([found]) and "setcap" not in said([found])


def test_local_mode_makes_a_device() -> None:
    here = network()
    only_raw = process(is_root=False, capabilities=1 << CAP_NET_RAW)
    found = check_privilege(plan(LOCAL), only_raw, here, here)
    assert levels(found) == {"privilege": Level.FAULT} and "CAP_NET_ADMIN" in said(found)
    found = check_privilege(plan(LOCAL), process(has_tun=False), here, here)
    assert levels(found) == {"tun": Level.FAULT} and "modprobe tun" in said(found)


def test_intercept() -> None:
    assert levels(check_intercept_privilege(InterceptPlan(), process(), network())) == {
        "privilege": Level.OK
    }
    denied = network(capture_problem=DENIED)
    (found,) = check_intercept_privilege(InterceptPlan(), process(**NOTHING), denied)
    assert found.level is Level.FAULT and "the target's answers" in found.text
    tun = InterceptPlan(uses_tun=True)
    only_admin = process(is_root=False, capabilities=1 << CAP_NET_ADMIN)
    assert levels(check_intercept_privilege(tun, only_admin, denied)) == {"privilege": Level.OK}
    (found,) = check_intercept_privilege(tun, process(**NOTHING), denied)
    assert "CAP_NET_ADMIN" in found.text
