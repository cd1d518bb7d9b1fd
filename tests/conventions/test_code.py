"""The rules of the house, as far as a machine can see them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("orchestrator", "tests", "migrations", "benchmarks")

LONGEST_BODY = 60

# a migration says the whole schema, as it was on that day
LONGER_BODIES = {"migrations/versions/0001_the_store.py:upgrade": 200}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[_Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, _Function):
            yield node


def test_imports_point_one_way() -> None:
    """The contracts on who may import whom are kept, by every module there is."""
    tool = Path(sys.executable).with_name("lint-imports")
    command = [str(tool), "--no-cache"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_test_says_what_holds() -> None:
    """Each test has a docstring, which is a sentence."""
    mute = [
        f"{name(path)}:{function.lineno} {function.name}"
        for path in sources("tests")
        for function in functions(path)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").strip().endswith((".", "?", "!"))
    ]
    assert mute == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_are_short(folder: str) -> None:
    """No function's body is longer than a page; its parameters are its documentation."""
    lengths = {
        f"{name(path)}:{function.name}": (function.end_lineno or 0) - function.body[0].lineno + 1
        for path in sources(folder)
        for function in functions(path)
    }
    assert longer(lengths, LONGER_BODIES, LONGEST_BODY) == {}


def longer(
    lengths: dict[str, int], allowed: dict[str, int], typical_duration: int
) -> dict[str, int]:
    return {
        name: lines
        for name, lines in lengths.items()
        if lines > allowed.get(name, typical_duration)
    }
