"""Giving privileges up, each time in a process of its own, since there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tcpcopy.privileges import CAP_NET_ADMIN, CAP_NET_RAW, permitted, said
from tcpcopy.rehearsal import OutputFiles, rehearse

needs_root = pytest.mark.skipif(
    not {CAP_NET_ADMIN, CAP_NET_RAW, 6, 7, 8} <= permitted(), reason="needs root"
)
SHOW = """
names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
def show():
    lines = open("/proc/thread-self/status").read().splitlines()
    return [" ".join(l.split()[1:]) for l in lines if l.split(":")[0] in names]
"""
RAW_SET = f"{1 << CAP_NET_RAW:016x}"
NONE = f"{0:016x}"


def run(code: str, *before: str) -> list[str]:
    """Run it with `show`; the lines that it prints."""
    done = subprocess.run(
        [*before, sys.executable, "-c", SHOW + code], capture_output=True, text=True, timeout=20,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@needs_root
def test_root_keeps_what_is_named() -> None:
    code = "from tcpcopy import privileges\nprivileges.drop({13})\nprint(*show(), sep='\\n')"
    found = run(code)
    assert found[0] == "0 0 0 0"
    assert found[3:] == [NONE, RAW_SET, RAW_SET, RAW_SET, NONE, "1"]


@needs_root
def test_another_user_keeps_them_too_and_never_gets_back() -> None:
    code = """
import os
from tcpcopy.privileges import User, drop
drop({13}, User("somebody", 65534, 65533, (65533, 1234)))
print(*show(), sep='\\n')
drop({13}, User("somebody", 65534, 65533, (65533, 1234)))
drop(set())
print(show()[4])
for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([])):
    try:
        attempt()
        print("got back")
    except PermissionError:
        print("no")
"""
    found = run(code)
    assert found[:3] == ["65534 65534 65534 65534", "65533 65533 65533 65533", "1234 65533"]
    assert found[3:9] == [NONE, RAW_SET, RAW_SET, RAW_SET, NONE, "1"]
    assert found[9:] == [NONE, "no", "no", "no"]


@needs_root
def test_programs_that_are_run_get_no_more() -> None:
    code = """
import subprocess
from tcpcopy import privileges
privileges.drop({13})
command = ["grep", "-E", "CapPrm|CapEff", "/proc/self/status"]
print(subprocess.run(command, capture_output=True, text=True).stdout, end="")
"""
    assert run(code) == [f"CapPrm:\t{RAW_SET}", f"CapEff:\t{RAW_SET}"]


@needs_root
def test_without_the_right_to_bound() -> None:
    """As under systemd, or with a capability on the file: what there is to give up, is given up."""
    caps = "--inh-caps=-all,+net_raw,+net_admin", "--ambient-caps=-all,+net_raw,+net_admin"
    bound = "--bounding-set=-all,+net_raw,+net_admin"
    code = "from tcpcopy import privileges\nprivileges.drop({13})\nprint(*show(), sep='\\n')"
    user = ("setpriv", f"--reuid={os.getuid()}", *caps, bound)
    found = run(code, *user)
    both = f"{(1 << CAP_NET_RAW) | (1 << CAP_NET_ADMIN):016x}"
    assert found[3:] == [NONE, RAW_SET, RAW_SET, both, NONE, "1"]


@needs_root
def test_threads_that_began_before_are_told() -> None:
    code = """
import logging, sys, threading
from tcpcopy.rehearsal import give_up
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
give_up({13})
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
give_up(set())
end.set()
"""
    assert run(code) == [
        "user 0, capabilities kept: CAP_NET_RAW",
        "2 threads of this process began before and keep their privileges",
        "user 0, capabilities kept: none",
    ]


def test_to_become_another_takes_a_privilege() -> None:
    code = """
from tcpcopy.errors import UsageError
from tcpcopy.privileges import User, drop
from tcpcopy.rehearsal import OutputFiles, rehearse
drop(set())
try:
    rehearse(OutputFiles(), set(), User("somebody", 12345, 12345, (12345,)))
except UsageError as error:
    print(error)
"""
    assert run(code) == [
        "--user somebody: to become another user takes CAP_SETUID and CAP_SETGID, which are "
        "missing here; run it as root, or leave it out"
    ]


def test_names() -> None:
    assert said({CAP_NET_RAW, CAP_NET_ADMIN}) == "CAP_NET_ADMIN, CAP_NET_RAW"
    assert said({1}) == "capability 1" and said(()) == ""


def test_nothing_to_rehearse_takes_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", None)
    assert rehearse(OutputFiles(), (), None) == ()
