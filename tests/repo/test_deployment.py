"""deploy/: the files are well-formed, their command lines are taken by the real parsers, and what
they give away is what the guide says: CAP_NET_RAW, and nothing else without a reason.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tcpcopy import intercept_cli, options
from tcpcopy.namespaces import own
from tcpcopy.version import VERSION
from tests.repo.tree import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
CONTAINERFILE = DEPLOY / "Containerfile"
UNITS_OF_MEMORY = {"Mi": 1 << 20, "Gi": 1 << 30, "M": 1 << 20, "G": 1 << 30}


def parse(command: str, words: list[str]) -> options.Options | intercept_cli.InterceptOptions:
    """What our command makes of its words, on a host that has their device. Raises UsageError."""
    if command == "intercept":
        return intercept_cli.parse(words)
    return options.parse(
        words, devices=lambda: ["lo", "eth0"], open_namespace=lambda option, _: own(option)
    )


def memory(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS_OF_MEMORY[unit]


# --- systemd -------------------------------------------------------------------------------------


def settings(unit: Path) -> dict[str, str]:
    """The settings of a unit, each of which stands once in it."""
    found: dict[str, str] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, equals, value = line.partition("=")
            assert equals and key not in found, line
            found[key] = value
    return found


def defaults(unit: Path) -> dict[str, str]:
    """What the environment file of a unit sets, as systemd reads it."""
    lines = unit.with_suffix(".default").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: shlex.split(value)[0] for name, _, value in pairs}


def test_both_commands_have_a_unit() -> None:
    assert [unit.stem for unit in UNITS] == ["intercept", "tcpcopy"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_runs_a_command_line_that_is_valid(unit: Path, tmp_path: Path) -> None:
    """$NAME is split at blanks, quotes respected (systemd.service(5), COMMAND LINES)."""
    found = settings(unit)
    assert found["EnvironmentFile"] == f"/etc/default/{unit.stem}"
    program, *words = found["ExecStart"].split()
    environment = defaults(unit)
    expanded: list[str] = []
    for word in words:
        name = word.removeprefix("$")
        expanded += shlex.split(environment.pop(name)) if name != word else [word]
    assert environment == {}, "set, and used by nothing"
    assert Path(program).name == unit.stem
    logs = tmp_path / found["LogsDirectory"]
    logs.mkdir()
    secret(tmp_path)
    words = [word.replace("/var/log", str(tmp_path)) for word in expanded]
    parse(unit.stem, [word.replace("%d", str(tmp_path)) for word in words])


def secret(directory: Path) -> Path:
    """What systemd or Kubernetes puts there."""
    path = directory / "relay.secret"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o400)
    return path


def test_intercept_is_not_open() -> None:
    """Its unit does not start without a secret; tcpcopy's says how it gets the same."""
    found = settings(DEPLOY / "systemd" / "intercept.service")
    name, _, path = found["LoadCredential"].partition(":")
    assert f"--secret-file %d/{name} " in found["ExecStart"]
    assert path.startswith("/")  # a name alone may be missing
    text = (DEPLOY / "systemd" / "intercept.service").read_text()
    assert f"openssl rand -hex 32 > {path}" in text and "umask 077" in text
    assert f"#LoadCredential={name}:{path}\n" in (
        (DEPLOY / "systemd" / "tcpcopy.service").read_text()
    )


def test_tcpcopy_of_classic_mode_takes_that_secret(tmp_path: Path) -> None:
    """The line of its options that stands there for it."""
    text = (DEPLOY / "systemd" / "tcpcopy.default").read_text()
    [line] = re.findall(r"^#TCPCOPY_OPTIONS=(.*)$", text, re.MULTILINE)
    words = shlex.split(shlex.split(line)[0])
    path = "/run/credentials/tcpcopy.service/relay.secret"
    assert words[words.index("--secret-file") + 1] == path
    words[words.index(path)] = str(secret(tmp_path))
    parsed = parse("tcpcopy", [word.replace("/var/log/tcpcopy", str(tmp_path)) for word in words])
    assert isinstance(parsed, options.Options)
    assert parsed.intercepts and parsed.relay.secret


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_gives_no_more_than_is_needed(unit: Path) -> None:
    found = settings(unit)
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == "CAP_NET_RAW"
    assert found["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_PACKET AF_NETLINK AF_UNIX"
    assert found["ProtectSystem"] == "strict"
    assert found["SystemCallFilter"] == "@system-service"
    assert found["DynamicUser"] == found["NoNewPrivileges"] == "yes"
    assert "User" not in found


def test_unit_leaves_the_program_its_memory_and_time() -> None:
    """The program's own limits come first: -m, and ten seconds for open sessions."""
    found = settings(DEPLOY / "systemd" / "tcpcopy.service")
    assert memory(found["MemoryMax"]) > options.Options().memory_bytes
    assert int(found["TimeoutStopSec"]) > 10


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` and `security`, offline; no other unit is looked at."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: install systemd")
    program = tmp_path / "opt" / "tcpcopy" / "bin" / unit.stem
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    copy = Path(shutil.copy(unit, tmp_path / "lib/systemd/system"))
    verify = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", str(copy)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(unit)]
    done = subprocess.run(rate, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


# --- Kubernetes ----------------------------------------------------------------------------------


def manifest(path: Path) -> dict[str, Any]:
    [found] = yaml.safe_load_all(path.read_text())
    assert isinstance(found, dict)
    return found


def pod(path: Path) -> dict[str, Any]:
    found = manifest(path)["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


def container(path: Path) -> dict[str, Any]:
    """The one of tcpcopy."""
    [found] = [one for one in pod(path)["containers"] if one["name"] == "tcpcopy"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_fits_the_schema(path: Path) -> None:
    found = manifest(path)
    kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_runs_a_command_line_that_is_valid(path: Path, tmp_path: Path) -> None:
    """Of the image of this version, whose entry point is tcpcopy."""
    found = container(path)
    assert found["image"] == f"tcpcopy:{VERSION}"
    assert "command" not in found
    words = [word.replace("/run/tcpcopy", str(tmp_path)) for word in found["args"]]
    secret(tmp_path)
    parsed = parse("tcpcopy", words)
    assert isinstance(parsed, options.Options)
    assert memory(found["resources"]["limits"]["memory"]) > parsed.memory_bytes
    assert pod(path)["terminationGracePeriodSeconds"] > 10
    assert ("--netns" in found["args"]) == bool(pod(path).get("hostPID"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_with_a_relay_has_its_secret(path: Path) -> None:
    """From a Secret, readable for its user and nobody else."""
    words = container(path)["args"]
    assert ("-s" in words) == ("--secret-file" in words)
    if "-s" not in words:
        return
    [mount] = container(path)["volumeMounts"]
    [volume] = pod(path)["volumes"]
    assert mount["readOnly"] and mount["name"] == volume["name"]
    where = Path(words[words.index("--secret-file") + 1])
    assert str(where.parent) == mount["mountPath"]
    assert volume["secret"]["defaultMode"] == 0o400
    assert (
        pod(path)["securityContext"]["fsGroup"] == container(path)["securityContext"]["runAsGroup"]
    )
    making = (
        f"kubectl create secret generic {volume['secret']['secretName']} --from-file={where.name}"
    )
    assert making in path.read_text()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_gives_no_more_than_is_needed(path: Path) -> None:
    """Only another namespace takes more than NET_RAW, and root."""
    context = container(path)["securityContext"]
    enters = "--netns" in container(path)["args"]
    more = ["SYS_ADMIN", "SYS_PTRACE"] if enters else []
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW", *more]}
    assert context["readOnlyRootFilesystem"] is True
    assert context.get("privileged", False) is False
    assert context.get("runAsNonRoot", False) is not enters
    assert (context["runAsUser"] == 0) is enters


# --- the image -----------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, continued lines joined."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.partition(" ") for line in joined.splitlines() if line]
    return [(name, rest) for name, _, rest in pairs]


def test_image_is_built_in_two_stages_from_the_same_plain_image() -> None:
    """No registry's host is named; compiler and headers stay behind."""
    stages = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(stages) == 2 and len(set(stages)) == 1
    assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+", stages[0])
    last = max(i for i, (name, _) in enumerate(instructions()) if name == "FROM")
    assert "gcc" not in " ".join(rest for _, rest in instructions()[last:])
    assert "TCPCOPY_COMPILE=require" in CONTAINERFILE.read_text()


def test_image_runs_our_command_without_root() -> None:
    by_name = dict(instructions())
    user, group = by_name["USER"].split(":")
    assert int(user) > 0 and int(group) > 0
    [command] = json.loads(by_name["ENTRYPOINT"])
    assert isinstance(parse(command, json.loads(by_name["CMD"])), options.Options)
    assert re.findall(r"setcap (\S+) ", CONTAINERFILE.read_text()) == ["cap_net_raw+ep"]


def test_image_shows_the_use_of_it_truly() -> None:
    """The commands in its comments: those of tcpcopy are parsed, capabilities are the one."""
    runs = re.findall(r"^#   podman run (.*)$", CONTAINERFILE.read_text(), re.MULTILINE)
    assert len(runs) == 2
    for run in runs:
        assert "--cap-drop all --cap-add net_raw" in run
        before, _, words = run.partition(" tcpcopy")
        parse("intercept" if "--entrypoint intercept" in before else "tcpcopy", words.split())


def test_build_gets_what_it_needs_and_nothing_else() -> None:
    """The ignore file opens what stands in the tree; the package needs each of them."""
    lines = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    opened = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "**"
    assert all((ROOT / name).exists() for name in opened)
    project = (ROOT / "pyproject.toml").read_text()
    assert {"build_ext.py", "setup.py", "pyproject.toml", "src", "README.md"} <= set(opened)
    assert 'readme = "README.md"' in project


def test_guide_builds_the_image_that_the_manifests_name() -> None:
    text = (ROOT / "docs" / "containers.md").read_text()
    assert set(re.findall(r"\btcpcopy:([\d.]+\d)", text)) == {VERSION}
