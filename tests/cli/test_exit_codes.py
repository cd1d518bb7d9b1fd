"""What a command prints when something went wrong, and its exit code."""

import errno
import sqlite3

import pytest

from orchestrator.cli import exit_codes as faults
from orchestrator.cli.exit_codes import exit_code_for
from orchestrator.errors import (
    CredentialError,
    ManifestError,
    RowFault,
    StoreError,
    StoreGoneError,
    UsageError,
)
from tests.store_errors import sqlite_error


@pytest.fixture(autouse=True)
def silenced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Streams that were silenced; the tests' own stays as it is."""
    streams: list[object] = []
    monkeypatch.setattr(faults, "silence", streams.append)
    return streams


def raised(error: Exception) -> Exception:
    """Return an error with a traceback."""
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - any error is asked for
        return caught


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    """Return what a task group raises of these, the last of them from a task group in it."""
    return ExceptionGroup("tasks", [*errors[:-1], ExceptionGroup("inner", [errors[-1]])])


USAGE = UsageError("No such region.", "Name another.")
STORE = StoreError("The file is a link.", "Remove it.")
GONE = StoreGoneError("The file is gone.", "Put it back.")
KEYS = CredentialError("No keys.", "Set them.")
LOCKED = sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
MANIFEST = ManifestError("jobs.csv", (RowFault(2, "region", "is empty.", "Fill it in."),))
FULL = OSError(errno.ENOSPC, "No space left on device", "/tmp/out")
BUG = raised(ValueError("a bug"))
PIPE = BrokenPipeError(errno.EPIPE, "Broken pipe")

ALONE = {
    USAGE: (2, ("No such region.", "Name another.")),
    STORE: (2, ("The file is a link.", "Remove it.")),
    GONE: (1, ("The file is gone.", "Put it back.")),
    KEYS: (6, ("No keys.", "Set them.")),
    LOCKED: (1, ("The database cannot be used: database is locked.", "lsof")),
    MANIFEST: (2, ("jobs.csv: 1 fault", "line 2, region: is empty. Fill it in.")),
    FULL: (1, ("/tmp/out: No space left on device.", "Free space")),
    BUG: (1, ("Traceback", "ValueError: a bug", "fault of the program")),
}


def names(error: object) -> str:
    """Return the name of an error in the list of tests."""
    return type(error).__name__


@pytest.mark.parametrize(("error", "expected"), ALONE.items(), ids=map(names, ALONE))
@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "in a group"])
def test_an_error_shows_its_message_and_its_remedy(
    error: Exception,
    expected: tuple[int, tuple[str, ...]],
    in_group: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A single error ends in the same way, whether a task group has raised it or not."""
    code, words = expected
    assert exit_code_for(group(error) if in_group else error) == code
    said = capsys.readouterr().err
    assert all(part in said for part in words)
    assert ("Traceback" in said) is (error is BUG)


@pytest.mark.parametrize("turned", [False, True])
def test_each_error_of_a_group_is_shown(turned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever was first, every message and every remedy is there."""
    errors = [*ALONE][:: -1 if turned else 1]
    assert exit_code_for(group(*errors)) == 2
    said = capsys.readouterr().err
    for _, words in ALONE.values():
        assert all(part in said for part in words)


def test_the_same_error_of_many_tasks_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A store that is locked is the same to all who write to it."""
    many = [sqlite_error("database is locked", sqlite3.SQLITE_BUSY) for _ in range(5)]
    assert exit_code_for(group(*many, *[raised(ValueError("a bug")) for _ in range(3)])) == 1
    said = capsys.readouterr().err
    assert said.count("database is locked") == 1
    assert said.count("ValueError: a bug") == 1


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((BUG, USAGE), 2),
        ((BUG, KEYS), 6),
        ((LOCKED, KEYS), 6),
        ((GONE, STORE), 2),
        ((KEYS, USAGE), 2),
        ((BUG, LOCKED), 1),
        ((PIPE, BUG), 1),
        ((PIPE, KEYS), 6),
        ((PIPE, PIPE), 0),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_person_can_fix_decides_the_exit_code(
    errors: tuple[Exception, ...], code: int, turned: bool
) -> None:
    """An internal fault does not hide unusable input or missing keys, whichever was first."""
    assert exit_code_for(group(*errors[:: -1 if turned else 1])) == code


def test_the_remedy_is_last(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not push what a person can do off the screen."""
    exit_code_for(group(USAGE, BUG, LOCKED))
    said = capsys.readouterr().err
    assert said.index("Traceback") < said.index("No such region.")
    assert said.rstrip().endswith("Name another.")


@pytest.mark.parametrize(
    ("errors", "count"), [((PIPE, BUG), 1), ((FULL, USAGE), 1), ((BUG, USAGE), 0)]
)
def test_an_output_that_cannot_be_written_is_silenced(
    errors: tuple[Exception, ...], count: int, silenced: list[object]
) -> None:
    """Python would try again to write it when the process ends."""
    exit_code_for(group(*errors))
    assert len(silenced) == count
