"""Rules of the code that no linter checks."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import orchestrator

ROOT = Path(__file__).parents[2]


def test_imports_point_one_way() -> None:
    """The import contracts of pyproject.toml are kept by every module."""
    tool = Path(sys.executable).with_name("lint-imports")
    command = [str(tool), "--no-cache"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_public_name_can_be_imported() -> None:
    """Each public name can be imported.

    Public names are imported when they are first used, so a wrong module shows only then.
    """
    assert "Orchestrator" in dir(orchestrator)
    for name in dir(orchestrator):
        assert getattr(orchestrator, name)


def modules(*folders: str) -> dict[str, ast.Module]:
    """Return the syntax tree of each module by its path, without empty modules."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}
    return {name: tree for name, tree in trees.items() if tree.body}


def test_every_module_says_what_it_holds() -> None:
    """Each module has a docstring, except conftest.py, whose content pytest defines."""
    found = modules("orchestrator", "migrations", "benchmarks", "tests")
    mute = [
        name
        for name, tree in found.items()
        if not ast.get_docstring(tree) and not name.endswith("conftest.py")
    ]
    assert mute == []


def test_first_lines_of_docstrings_are_short() -> None:
    """A reader sees the first line of a function's docstring in a list or a tool tip."""
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in modules("orchestrator", "migrations", "benchmarks", "tests").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len((ast.get_docstring(node) or "").split("\n")[0]) >= 80
    ]
    assert long == []


def test_every_test_says_what_holds_in_one_sentence() -> None:
    """The docstring of each test starts with one sentence.

    A second paragraph may give reasons.
    """
    wrong = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in modules("tests").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not is_sentence((ast.get_docstring(node) or "").split("\n\n")[0])
    ]
    assert wrong == []


def is_sentence(text: str) -> bool:
    """Return whether a text is one sentence."""
    has_another = re.search(r"[.!?]\s+[A-Z]", text)
    return not has_another and bool(re.match(r"[A-Z0-9`\"]", text)) and text.endswith(".")
