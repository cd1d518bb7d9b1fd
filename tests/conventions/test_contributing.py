"""CONTRIBUTING.md agrees with the tree."""

import re
from pathlib import Path

import pytest

from orchestrator.store.tables import jobs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of the same level."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_path_in_the_map_exists() -> None:
    """Each file and folder that the map names is in the tree."""
    named: list[str] = re.findall(r"`([\w/]+(?:\.(?:py|toml)|/))`", section("Where to change what"))
    roots = (ROOT, ROOT / "orchestrator")
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert len(named) > 50
    assert missing == []


def test_every_package_is_in_the_map() -> None:
    """The map names at least one file of each package."""
    text = section("Where to change what")
    packages = [path.parent.name for path in (ROOT / "orchestrator").glob("*/__init__.py")]
    assert [name for name in packages if f"`{name}/" not in text] == []


def test_columns_in_the_glossary_exist() -> None:
    """Each glossary term in code style is a column of the jobs table."""
    terms = re.findall(r"^\| `(\w+)` \|", section("Glossary"), re.MULTILINE)
    assert terms
    assert set(terms) <= set(jobs.c.keys())


def test_every_make_target_exists() -> None:
    """Each command that is named under "How to test" is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\| `make ([a-z-]+)` \|", section("How to test"), re.MULTILINE)
    assert targets
    assert [name for name in targets if f"\n{name}:" not in makefile] == []


DECISIONS = re.findall(r"^\*\*(.+?)\*\*\n((?:.+\n)+)", section("Decisions") + "\n", re.MULTILINE)


@pytest.mark.parametrize(("title", "text"), DECISIONS, ids=[title[:40] for title, _ in DECISIONS])
def test_a_decision_has_context_decision_and_consequence(title: str, text: str) -> None:
    """Each decision is dated and has its three parts in this order."""
    assert re.match(r"\d{4}-\d\d-\d\d · ", title)
    parts = re.findall(r"^(Context|Decision|Consequence): ", text, re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequence"]
