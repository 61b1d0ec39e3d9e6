"""Files of runs: who is dead, what of it concerns this run, and who may write where."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.ledger import read_header
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.run_files import Job, Possible, RunFiles, default_directory, network_namespace

TARGET = (bytes((10, 9, 0, 3)), 8080)
OTHER = (bytes((10, 9, 0, 4)), 8080)
CLIENT = bytes((10, 1, 0, 7))
JOB = Job("classic", ("80-10.9.0.3:8080",))
ANOTHER = Job("classic", ("81-10.9.0.3:8080",))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(0o700)
    return path


def run(
    directory: Path,
    job: Job = JOB,
    *,
    targets: tuple[tuple[bytes, int], ...] = (TARGET,),
    workers: int = 1,
    given: bool = True,
    pool: str = "",
) -> RunFiles:
    owner = Possible(targets, pool=parse_clients(pool) if pool else None, workers=workers)
    files = RunFiles(str(directory), given, job, owner)
    files.open(targets, workers)
    return files


def die(files: RunFiles) -> None:
    """As the kernel ends a process: its locks go, its files stay."""
    files.begin()
    for ledger in files.ledgers:
        ledger.close()
    files.ledgers = []
    files.close()


def sessions_of(files: RunFiles) -> list[set[int]]:
    """The mapped ports that each worker is to reset."""
    found = []
    for ledger in files.ledgers:
        sessions = [ledger.session(place) for place in ledger.resume()]
        found.append({session[1] for session in sessions if session is not None})
    return found


def test_a_run_that_ended_leaves_nothing(directory: Path) -> None:
    files = run(directory, workers=2)
    files.begin()
    assert len(os.listdir(directory)) == 2
    assert all((directory / name).stat().st_mode & 0o777 == 0o600 for name in os.listdir(directory))
    files.finish()
    files.close()
    assert os.listdir(directory) == []
    assert run(directory).earlier == []


def test_a_dead_run_is_found_and_its_sessions_go_over(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(directory)
    for port in (40001, 40002):
        first.ledgers[0].add(CLIENT, port, *TARGET)
    die(first)
    caplog.set_level(logging.INFO)
    second = run(directory, workers=3)
    assert set().union(*sessions_of(second)) == {40001, 40002}
    assert len(os.listdir(directory)) == 4, "the old file stays until all is open"
    second.begin()
    assert len(os.listdir(directory)) == 3
    assert second.found is not None and second.found.process == os.getpid()
    assert f"the last run (process {os.getpid()}, begun 20" in caplog.text
    assert (
        "ended without a summary; 2 sessions were left open at the target: resetting" in caplog.text
    )
    second.close()


def test_a_start_that_is_refused_changes_nothing(directory: Path) -> None:
    first = run(directory)
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    die(first)
    before = {name: (directory / name).read_bytes() for name in os.listdir(directory)}
    second = run(directory)
    second.close()
    assert {name: (directory / name).read_bytes() for name in os.listdir(directory)} == before
    assert sessions_of(run(directory)) == [{40001}]


def test_a_run_that_lives_is_left_alone(directory: Path) -> None:
    first = run(directory)
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    first.begin()
    second = run(directory)
    assert second.earlier == [] and sessions_of(second) == [set()]
    second.close()
    first.close()


def test_the_job_of_another_is_left_to_it(directory: Path) -> None:
    """Unless all of its sessions are such as this run opens."""
    first = run(directory, ANOTHER, targets=(TARGET, OTHER))
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    first.ledgers[0].add(CLIENT, 40002, *OTHER)
    die(first)
    second = run(directory)
    assert second.earlier == []
    second.close()
    third = run(directory, targets=(TARGET, OTHER))
    assert sessions_of(third) == [{40001, 40002}]
    assert third.found is None and "another run" in third.earlier[0].describe()
    third.close()


def test_what_cannot_be_of_this_run_is_said(directory: Path) -> None:
    """The same job with another -c: the sessions from the old addresses stay."""
    first = run(directory)
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    die(first)
    second = run(directory, pool="10.254.7.0/24")
    assert sessions_of(second) == [set()]
    assert "1 session may be open at a target or with an address" in second.earlier[0].describe()
    second.begin()
    assert len(os.listdir(directory)) == 1
    second.close()


def test_only_the_own_network_namespace_counts_where_all_runs_write(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(directory)
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    die(first)
    here = network_namespace()
    monkeypatch.setattr("tcpcopy.run_files.network_namespace", lambda: here + 1)
    elsewhere = run(directory, given=False)
    assert elsewhere.earlier == []
    elsewhere.close()
    assert run(directory).earlier, "a directory that was given is this job's"


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_directory_that_others_write_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    with pytest.raises(UsageError) as caught:
        run(directory)
    assert str(caught.value).startswith(f"--state {directory}: ")
    assert os.listdir(directory) == []


def test_a_directory_that_is_a_link_is_refused(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises(UsageError):
        run(link)


def test_without_a_place_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = run(tmp_path / "none" / "state", given=False)
    assert files.ledgers == [] and files.found is None
    assert caplog.text.count("no file for the state of this run") == 1
    files.begin()
    files.finish()
    files.close()


def test_links_and_pipes_in_the_directory_are_passed_over(directory: Path, tmp_path: Path) -> None:
    first = run(directory)
    first.ledgers[0].add(CLIENT, 40001, *TARGET)
    die(first)
    (name,) = os.listdir(directory)
    os.rename(directory / name, tmp_path / name)
    (directory / "1-a-0.run").symlink_to(tmp_path / name)
    os.mkfifo(directory / "1-b-0.run")
    (directory / "1-c-0.run").mkdir()
    files = run(directory)
    assert files.earlier == []
    files.close()


def test_files_that_are_not_ours_stay(directory: Path) -> None:
    for name, data in (("notes.run", b"to do"), ("empty.run", b""), ("x.txt", b"x")):
        (directory / name).write_bytes(data)
    files = run(directory)
    files.begin()
    files.finish()
    files.close()
    assert sorted(os.listdir(directory)) == ["empty.run", "notes.run", "x.txt"]


def test_sessions_that_wait_are_left_to_the_next(directory: Path) -> None:
    """A run that ends with a summary before it has reset all says another thing."""
    first = run(directory)
    place = first.ledgers[0].add(CLIENT, 40001, *TARGET)
    first.begin()
    first.ledgers[0].keep_only({place})
    first.finish()
    first.close()
    (name,) = os.listdir(directory)
    header = read_header((directory / name).read_bytes())
    assert header is not None and header.ended
    second = run(directory)
    assert second.found is None, "it had a summary"
    assert "ended before all was closed; 1 session was left open" in second.earlier[0].describe()


@pytest.mark.parametrize(
    ("environment", "user", "wanted"),
    [
        ({}, 0, "/run/tcpcopy"),
        ({"RUNTIME_DIRECTORY": "/run/tcpcopy-a:/run/b"}, 65534, "/run/tcpcopy-a"),
        ({"RUNTIME_DIRECTORY": "relative"}, 0, "/run/tcpcopy"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/tcpcopy"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/tcpcopy"),
        ({}, 7, ""),
    ],
)
def test_where_files_usually_are(environment: dict[str, str], user: int, wanted: str) -> None:
    assert default_directory(environment, user) == wanted


@pytest.mark.parametrize(
    ("mapped", "possible"),
    [
        ("10.1.0.7", True),
        ("127.0.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
    ],
)
def test_which_clients_are_possible(mapped: str, possible: bool) -> None:
    address = bytes(map(int, mapped.split(".")))
    owner = Possible((TARGET,))
    assert (owner(address, 5, *TARGET) == 0) is possible
    assert owner(address, 0, *TARGET) == -1
    assert owner(address, 5, *OTHER) == -1
    assert owner(bytes(16), 5, *TARGET) == -1


def test_loopback_clients_of_a_loopback_target_are_possible() -> None:
    here = (bytes((127, 0, 0, 1)), 8080)
    assert Possible((here,))(here[0], 5, *here) == 0
    assert Possible((here,), parts=[parse_clients("10.254.0.0/24")])(here[0], 5, *here) == -1


def test_local_mode_each_worker_has_its_range() -> None:
    parts = [parse_clients("10.254.0.0/24"), parse_clients("10.254.1.0/24")]
    owner = Possible((TARGET,), parts=parts, workers=2)
    assert owner(bytes((10, 254, 1, 9)), 5, *TARGET) == 1
    assert owner(CLIENT, 5, *TARGET) == -1
    keeping = Possible((TARGET,), parts=parts[:1], is_own=lambda address: address == CLIENT)
    assert keeping(bytes((10, 254, 0, 9)), 5, *TARGET) == 0
    assert keeping(bytes((10, 1, 0, 8)), 5, *TARGET) == 0
    assert keeping(CLIENT, 5, *TARGET) == -1
