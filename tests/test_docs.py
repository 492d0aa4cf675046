"""The documents hold what the code cites, and their links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

DOCUMENTS = [Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), Path("tasks/report/README.md")]
DOCUMENTS += [
    Path("datamodules/embedded/README.md"),
    Path("configs/sweeps/README.md"),
    *sorted(Path("docs").glob("*.md")),
]
CITING = {".py", ".yaml", ".md", ".sh", ".toml", ".html"}
# "protocol rules 6 and 11-15": a word, then numbers joined by commas, "and", "to" or dashes
NUMBERS = r"\d+(?:(?:,? and |, | to |-)\d+)*"
WORD = {"rule": r"\b[Rr]ules?\s+", "contract": r"\b[Cc]ontracts?\s+"}


def cited(text: str, word: str) -> set[int]:
    """The numbers that `text` cites after `word`, ranges filled in."""
    found = set()
    for group in re.findall(rf"{WORD[word]}({NUMBERS})\b(?!'s own)", text):
        for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", group):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def citing_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if path.suffix in CITING and path.exists()]


def test_citations_are_read_with_their_ranges():
    text = "protocol rules 1, 6 and 11-13; rule 20; Rules 2 to 4. (contract 3)"
    assert cited(text, "rule") == {1, 2, 3, 4, 6, 11, 12, 13, 20}
    assert cited(text, "contract") == {3}
    assert cited("the rule of 3 evaluations, a ruler 5 long", "rule") == set()


@pytest.mark.parametrize(
    ("word", "document", "item", "count"),
    [("rule", "docs/protocol.md", r"^(\d+)\. \*\*", 32), ("contract", "docs/design.md", r"^## Contract (\d+): ", 6)],
)
def test_every_rule_and_contract_that_is_cited_exists(word, document, item, count):
    there = [int(number) for number in re.findall(item, Path(document).read_text(), re.M)]
    assert there == list(range(1, count + 1))  # numbered without a gap, each once
    missing = {
        (str(path), number)
        for path in citing_files()
        if path != Path("tests/test_docs.py")
        for number in cited(path.read_text(), word) - set(there)
    }
    assert missing == set()


def test_every_claim_is_in_both_documents():
    wanted = [f"golmant-{i}" for i in range(1, 14)] + [f"you-{i}" for i in range(1, 12)]
    papers, protocol = (Path("docs", f"{name}.md").read_text() for name in ("papers", "protocol"))
    assert re.findall(r"^\| ((?:golmant|you)-\d+) \|", papers, re.M) == wanted
    rows = re.findall(r"^\| ((?:(?:golmant|you)-\d+(?:, )?)+) \|", protocol, re.M)
    assert [claim for row in rows for claim in row.split(", ")] == wanted


def anchors(text: str) -> set[str]:
    """The names of a document's headings, as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_relative_links_resolve(document):
    text = document.read_text()
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.parent == Path("docs")] + DOCUMENTS[:3], ids=str)
def test_files_that_are_named_exist(document):
    """`configs/...`, `tests/...` and the like in a document; names with a placeholder or a pattern are not checked."""
    named = re.findall(r"\b((?:configs|tests|tasks|callbacks|datamodules|docs)/[\w./-]*[\w/])", document.read_text())
    missing = [name for name in named if "NAME" not in name and not Path(name).exists()]
    assert missing == []


def test_no_document_is_cited_that_is_not_here():
    names = {(str(p), n) for p in citing_files() for n in re.findall(r"(?<![\w/.*}-])[\w/-]*\w+\.md\b", p.read_text())}
    absent = {
        (place, name)
        for place, name in names
        if place != "tests/test_docs.py" and not any(Path(root, name).exists() for root in (Path(place).parent, "."))
    }
    assert {name for _, name in absent} <= {
        "report.md",
        "report/report.md",
        "LICENSE.md",
    }  # what the report writes, and MLPerf's
