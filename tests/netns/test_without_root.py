"""Both commands as a user without root and with CAP_NET_RAW alone: all is replayed, both modes."""

from __future__ import annotations

import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Lab
from tests.lab.scenario import MODES, PORT, Scenario, environment, python

pytestmark = pytest.mark.netns
NOBODY = 65534
MEBIBYTE = 1 << 20


def opened() -> list[str]:
    """Shell lines that open the way to interpreter and modules, which may be in root's home.

    Only in a mount namespace of their own: an empty directory is put over each closed one, and
    what is needed of it shown there again.
    """
    modules = environment()["PYTHONPATH"].split(":") + sys.path
    needed = {Path(p) for p in (sys.prefix, sys.base_prefix, *modules) if Path(p).is_dir()}
    closed = {p: d for p in needed for d in p.parents if not d.stat().st_mode & stat.S_IXOTH}
    places = [(shlex.quote(str(p)), f"/mnt/{n}") for n, p in enumerate(sorted(closed))]
    lines = ["mount -t tmpfs none /mnt"]
    lines += [f"mkdir {kept} && mount --bind {place} {kept}" for place, kept in places]
    covers = {shlex.quote(str(directory)) for directory in closed.values()}  # the outermost ones
    lines += [f"mount -t tmpfs -o mode=755 none {directory}" for directory in sorted(covers)]
    lines += [f"mkdir -p {place} && mount --bind {kept} {place}" for place, kept in places]
    return lines


def as_nobody(capabilities: str) -> tuple[str, ...]:
    """Become nobody with these ambient capabilities and no others, and without a way to more."""
    kept = f"-all,{capabilities}" if capabilities else "-all"
    options = [f"--{name}={kept}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
    return run_by_nobody("--no-new-privs", *options)


def run_by_nobody(*options: str) -> tuple[str, ...]:
    """What runs the command behind it as nobody, with these options of setpriv."""
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *options]
    lines = [*opened(), f'exec {shlex.join(command)} "$@"']
    return ("unshare", "-m", "sh", "-ec", "\n".join(lines), "sh")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab whose directory is open to all: the tests' own is its owner's alone."""
    with Lab() as lab:
        lab.directory.chmod(0o777)
        yield lab


def privileges(pid: int) -> dict[str, str]:
    """User and capabilities of a process. Source: proc(5), status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if line.startswith(("Uid", "Cap")))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_net_raw_is_enough(scenario: Scenario, mode: str, workers: int) -> None:
    """Raw sockets, rings, fanout and kernel sockets; uploads in segments that fit the queue."""
    scenario.servers()
    with scenario.replay(mode, "--workers", workers, prefix=as_nobody("+net_raw")) as replay:
        found = privileges(replay.tcpcopy.pid)
        assert set(found["Uid"].split()) == {str(NOBODY)}
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 1 << 13  # CAP_NET_RAW
        scenario.load("--connections 50 --requests 20")
        scenario.load("--connections 500 --concurrency 20 --seed 2")
        scenario.wait_for_target()
    result = scenario.compare()
    assert result.clean and result.exact == 550, f"{result}\n{replay.output}"
    assert replay.exit_code == 0, replay.output
    assert replay.report["sessions"]["replayed"] == 550


def test_intercept_with_net_raw(scenario: Scenario) -> None:
    """The assistant's side of the same: port 36524 needs no privilege, capturing only this one."""
    scenario.servers()
    scenario.lab.classic()
    command = python("tcpcopy.intercept_cli", "-i", "eth0", "-F", f"tcp and src port {PORT}")
    intercept = scenario.lab.assistant.start(
        [*as_nobody("+net_raw"), *command], name="intercept", env=environment()
    )
    intercept.wait_for("listening")
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{scenario.lab.target.v4}:{PORT}", "-s", scenario.lab.assistant.v4,
        prefix=as_nobody("+net_raw"),
    )  # fmt: skip
    scenario.load("--connections 50 --requests 20")
    assert scenario.wait_for_target()
    assert replay.stop() == 0, replay.output
    result = scenario.compare()
    assert result.clean and result.exact == 50, result


def test_short_queue_is_told_at_the_start(scenario: Scenario) -> None:
    """Without CAP_NET_ADMIN the kernel bounds the queue of large packets: one line, with mends."""
    scenario.servers()
    told = "packets above 2 KiB"
    with scenario.replay("socket", prefix=as_nobody("+net_raw")) as replay:
        lines = [line for line in replay.output.splitlines() if told in line]
        assert len(lines) == 1 and "WARNING" in lines[0] and "net.core.rmem_max" in lines[0]
        scenario.load("--connections 1")
        scenario.wait_for_target()
    with scenario.replay("socket", prefix=as_nobody("+net_raw,+net_admin")) as replay:
        assert told not in replay.output
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text())
    if limit >= MEBIBYTE:  # no more asked for than granted
        with scenario.replay("socket", "-B", "1", prefix=as_nobody("+net_raw")) as replay:
            assert told not in replay.output


def test_interpreter_with_file_capabilities(scenario: Scenario) -> None:
    """`setcap cap_net_raw+ep` on a copy of the interpreter, as the guide has it."""
    if not shutil.which("setcap"):
        pytest.fail("setcap is missing: install libcap2-bin")
    scenario.servers()
    python_copy = Path(
        shutil.copy(Path(sys.executable).resolve(), scenario.lab.directory / "python")
    )
    subprocess.run(["setcap", "cap_net_raw+ep", str(python_copy)], check=True)
    command = python("tcpcopy.cli", "--json", scenario.lab.directory / "report.json")
    command += ["-x", f"{PORT}-{scenario.lab.target.v4}:{PORT}"]
    command[0] = str(python_copy)
    paths = dict.fromkeys([environment()["PYTHONPATH"], *filter(None, sys.path)])
    env = environment() | {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": ":".join(paths)}
    replay = scenario.lab.online.start([*run_by_nobody(), *command], name="tcpcopy", env=env)
    replay.wait_for(r"\bready\b", 20)
    assert int(privileges(replay.pid)["CapEff"], 16) == 1 << 13
    scenario.load("--connections 50 --requests 20")
    assert scenario.wait_for_target()
    assert replay.stop() == 0, replay.output()
    result = scenario.compare()
    assert result.clean and result.exact == 50, result


def test_without_the_capability(scenario: Scenario) -> None:
    """One line that names it."""
    lab = scenario.lab
    command = python("tcpcopy.cli", "-x", f"{PORT}-{lab.target.v4}:{PORT}")
    done = subprocess.run(
        lab.online.command([*as_nobody(""), *command]),
        capture_output=True, text=True, timeout=20, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("tcpcopy: capture: CAP_NET_RAW is missing; ")
