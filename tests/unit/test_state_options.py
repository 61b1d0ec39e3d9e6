"""--state: words, and what of the options says which sessions a run can have opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpcopy import cli, options
from tcpcopy.errors import UsageError
from tcpcopy.state_options import NONE, possible

X = ("-x", "80-10.9.0.3:8080")
TARGET = (bytes((10, 9, 0, 3)), 8080)


def parse(*words: str) -> options.Options:
    return options.parse([*X, *words], devices=lambda: ["lo"])


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse().state is None
    assert parse("--state", "none").state == NONE
    assert parse("--state", str(tmp_path)).state == str(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert parse("--state", tmp_path.name).state == str(tmp_path)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse("--state", str(tmp_path / "x"))
    assert str(caught.value) == (
        f"--state {tmp_path / 'x'}: is not a directory; create it (mkdir -m 700), or give none"
    )


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [
        (("-s", "10.9.0.4"), "10.1.2.3", "127.0.0.1"),
        (("-s", "10.9.0.4", "-c", "10.7.0.x"), "10.7.0.200", "10.7.1.200"),
        (("-s", "10.9.0.4", "-c", "10.7.0.x", "--workers", "2"), "10.7.0.200", "10.7.1.200"),
        (("--local",), "198.18.0.9", "10.1.2.3"),
        (("--local", "-c", "keep"), "10.1.2.3", "127.0.0.1"),
    ],
)
def test_clients_of_each_mode(words: tuple[str, ...], inside: str, outside: str) -> None:
    asked = parse(*words)
    owner = possible(cli.copier_config(asked), asked.workers)

    def worker(text: str) -> int:
        return owner(bytes(map(int, text.split("."))), 40001, *TARGET)

    assert 0 <= worker(inside) < asked.workers
    assert worker(outside) == -1


def test_files_are_of_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same words give the same job, others another; none gives none."""

    def job(*words: str) -> bytes:
        asked = options.parse(["--state", str(tmp_path), *words], devices=lambda: ["lo"])
        files = cli.files_of_run(asked, cli.copier_config(asked))
        assert files is not None
        return files._job.digest()

    assert job(*X) == job(*X, "-r", "50")
    assert job(*X) != job(*X, "-s", "10.9.0.4")
    assert job(*X) != job("-x", "81-10.9.0.3:8080")
    asked = parse("--state", "none")
    assert cli.files_of_run(asked, cli.copier_config(asked)) is None
