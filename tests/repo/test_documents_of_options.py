"""docs/ and README agree with the option tables and with the keys of the report."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.options_page import PAGE, page
from tcpcopy import doctor_cli, inspect_cli, intercept_cli, options
from tcpcopy.doctor import causes, relay_causes
from tcpcopy.namespaces import own
from tcpcopy.report.outcome import Outcome
from tcpcopy.report.schema import FIELDS
from tests.repo.tree import ROOT
from tests.unit.relay import certificates

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# About our two commands only; others speak of tools of the project as well.
GUIDES = [path for path in DOCUMENTS if path.stem not in ("performance", "design")]
SUMMARY = ROOT / "docs" / "reading-the-summary.md"
DIFFERENCES = ROOT / "docs" / "differences-from-the-c-program.md"
TABLES = {"tcpcopy": options.OPTIONS, "intercept": intercept_cli.OPTIONS}


def test_options_page_is_made_from_the_tables() -> None:
    again = "make it again: PYTHONPATH=src python scripts/options_page.py"
    assert PAGE.read_text() == page(), again


def test_every_key_of_the_report_is_documented() -> None:
    """`sessions.outcomes.*` and the like stand for keys that are listed by their own names."""
    text = SUMMARY.read_text()
    missing = []
    for key in FIELDS:
        parent, _, last = key.rpartition(".")
        whole = f"`{key}`" in text
        by_group = f"`{parent}.*`" in text and f"`{last}`" in text
        if not (whole or by_group):
            missing.append(key)
    assert missing == []


def test_no_key_is_documented_that_is_not_there() -> None:
    tops = {re.split(r"[.\[]", key)[0] for key in FIELDS}
    parents = {key.rpartition(".")[0] + ".*" for key in FIELDS}
    named = set(re.findall(r"`([a-z_]+(?:\[\])?(?:\.[a-z_*]+(?:\[\])?)+)`", SUMMARY.read_text()))
    unknown = {key for key in named if key not in FIELDS and key not in parents}
    assert {key for key in unknown if re.split(r"[.\[]", key)[0] in tops} == set()


@pytest.mark.parametrize("outcome", Outcome, ids=lambda outcome: outcome.name.lower())
def test_every_outcome_is_explained(outcome: Outcome) -> None:
    row = re.compile(
        rf"^\| `{outcome.name.lower()}` \| {re.escape(outcome.description)} \| \S", re.M
    )
    assert row.search(SUMMARY.read_text())


@pytest.mark.parametrize("command", TABLES)
def test_every_short_option_is_compared_with_the_c_program(command: str) -> None:
    """All of them stand in the table of their command, in the first column."""
    text = DIFFERENCES.read_text()
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section is not None
    rows = set(re.findall(r"`(-\w)`", " ".join(re.findall(r"^\| ([^|]*)\|", section[1], re.M))))
    shorts = {option.short for option in TABLES[command] if option.short}
    assert shorts - rows == set()


def code_blocks(text: str) -> Iterator[str]:
    """The fenced shell blocks of a document, lines that a backslash joins made one."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        yield block.replace("\\\n", " ")


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command line of ours in the shell blocks: its name and its words."""
    for block in code_blocks(text):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            for name in TABLES:
                if name in words and words[-1] != name:
                    given = words[words.index(name) + 1 :]
                    if given[0] not in ("demo", "inspect"):
                        yield name, given[1:] if given[0] == "doctor" else given
                    break


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_command_lines_in_documents_are_understood(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that a guide shows is taken by the parser of its command."""
    certificates.write(tmp_path)
    certificates.write_secret(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, words in commands_in(document.read_text()):
        if name == "tcpcopy":
            options.parse(
                words,
                devices=lambda: ["lo", "eth0", "eth1", "mirror0"],
                open_namespace=lambda option, _: own(option),
            )
        else:
            intercept_cli.parse(words)


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: path.name)
def test_options_named_in_documents_exist(document: Path) -> None:
    """No long option is named in a guide that neither command has."""
    known = {option.long for table in TABLES.values() for option in table}
    known |= set(re.findall(r"--[a-z-]+", inspect_cli.help_text()))
    known |= set(re.findall(r"--[a-z-]+", doctor_cli.help_text("tcpcopy")))
    # Those of the C programs' configure and of other tools are named with their tool.
    others = set(re.findall(r"configure ((?:--[\w-]+ ?)+)", document.read_text()))
    foreign = {word for words in others for word in words.split()}
    for table in re.findall(r"^\| \w+: configure \|.*?^$", document.read_text(), re.M | re.S):
        for cell in re.findall(r"^\| ([^|]*)\|", table, re.M):  # the first of each row
            foreign |= {word.strip("`") for word in cell.split()}
    named = set(re.findall(r"`(--[a-z][\w-]+)", document.read_text()))
    assert named - known - foreign == set()


def test_every_check_is_in_the_table_of_its_guide() -> None:
    """And nothing else is: the names that the modules of checks give to findings."""
    named = {causes.CHECK, relay_causes.CHECK}
    for path in sorted((ROOT / "src" / "tcpcopy" / "doctor").glob("checks_*.py")):
        module = importlib.import_module(f"tcpcopy.doctor.{path.stem}")
        for first in re.findall(r'\bFinding\(\s*(_[A-Z_]+|"\w+"|check)', path.read_text()):
            named.add(getattr(module, first) if first.startswith("_") else first.strip('"'))
        named |= {
            getattr(module, name) for name in ("_ROUTE", "_RELAY_ROUTE") if name in vars(module)
        }
    text = (ROOT / "docs" / "check-the-set-up.md").read_text()
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))
    assert rows - {"ok", "note", "warning", "fault"} == named - {"check"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_anchors_are_headings(document: Path) -> None:
    links = re.findall(r"\]\(([^):#]*)#([^)]+)\)", document.read_text())
    places = [(document.parent / page if page else document, anchor) for page, anchor in links]
    missing = [
        f"{page.name}#{anchor}"
        for page, anchor in places
        if page.suffix == ".md" and anchor not in slugs(page)
    ]
    assert missing == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 250


def test_every_page_is_found_from_the_readme() -> None:
    """Linked there, or on a page of the index that is."""
    index = "docs/choose-a-mode.md"
    text = (ROOT / "README.md").read_text()
    assert index in text
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", text))
    linked |= set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / index).read_text()))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - linked == set()
