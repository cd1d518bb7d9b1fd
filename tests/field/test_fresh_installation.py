"""Installations from a wheel and a source archive, in a folder with blanks and Chinese letters."""

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.field

ROOT = Path(__file__).parents[2]


def run(
    command: Sequence[object], folder: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command outside the checkout."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def build(kind: str, folder: Path) -> Path:
    """Build a wheel or a source archive from a copy of the tracked files.

    The test is skipped if no package index can be reached.
    """
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in files.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target := source / name).parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    tools = folder / "tools"
    venv.create(tools, with_pip=True)
    installed = run([tools / "bin" / "pip", "install", "-q", "hatchling"], folder)
    if installed.returncode:
        pytest.skip(f"no package index ({installed.stderr.strip()[-200:]})")
    command = [tools / "bin" / "python", "-m", "hatchling", "build", "-t", kind, "-d", folder]
    built = run(command, source)
    assert built.returncode == 0, built.stderr
    (archive,) = (*folder.glob("*.whl"), *folder.glob("*.tar.gz"))
    return archive


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_commands_work(kind: str, tmp_path: Path) -> None:
    """An installed program shows its help texts, upgrades a store and runs the demo."""
    archive = build(kind, tmp_path)
    place = tmp_path / "Program Files 程序"
    venv.create(place, with_pip=True)
    installed = run([place / "bin" / "pip", "install", "-q", "--no-compile", archive], tmp_path)
    assert installed.returncode == 0, installed.stderr
    # as if another user had installed it: nothing can be written there
    package = next(place.glob("lib/python*/site-packages/orchestrator"))
    assert (package / "migrations" / "versions").is_dir()
    for folder in (package, *package.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o555)
    program = place / "bin" / "orchestrator"
    for words in (
        "--version", "--help", "enqueue --help", "run --help", "history --help", "show --help",
        "status --help", "retry --help", "cancel --help", "resolve --help", "db upgrade --help",
        "simulate --help", "db upgrade", "db upgrade", "history", "demo --images 20",
    ):  # fmt: skip
        ended = run([program, *words.split()], tmp_path)
        assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
        assert "Traceback" not in ended.stderr
    for python_options in (["-I"], ["-P"], ["-OO"], ["-B"], ["-X", "dev"]):
        command = [place / "bin" / "python", *python_options, "-m", "orchestrator", "history"]
        ended = run(command, tmp_path)
        assert (ended.returncode, "ResourceWarning" in ended.stderr) == (0, False), ended.stderr
    checked = [place / "bin" / "python", "-c", "import orchestrator.settings, orchestrator"]
    assert run(checked, tmp_path, PYTHONWARNINGS="error").returncode == 0


def test_this_python_is_one_that_the_readme_names() -> None:
    """The README names the versions that are tested."""
    version = "{}.{}".format(*sys.version_info)
    assert version in (ROOT / "README.md").read_text().split("pipx install .")[1].splitlines()[0]
