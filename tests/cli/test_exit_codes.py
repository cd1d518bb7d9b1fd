"""Messages and exit codes of commands that end with an error."""

import errno
import sqlite3

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.cli import exit_codes
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
    """Record which streams were silenced, and leave the test's own streams alone."""
    streams: list[object] = []
    monkeypatch.setattr(exit_codes, "silence", streams.append)
    return streams


def raised(error: Exception) -> Exception:
    """Return the error with a traceback."""
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - any error is asked for
        return caught


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    """Return a group with these errors, the last of them in a nested group."""
    return ExceptionGroup("tasks", [*errors[:-1], ExceptionGroup("inner", [errors[-1]])])


USAGE = UsageError("No such region.", "Name another.")
STORE = StoreError("The file is a link.", "Remove it.")
GONE = StoreGoneError("The file is gone.", "Put it back.")
KEYS = CredentialError("No keys.", "Set them.")
LOCKED = sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
NO_CONNECTION = PoolTimeoutError("QueuePool limit of size 5 overflow 10 reached")
MANIFEST = ManifestError("jobs.csv", (RowFault(2, "region", "is empty.", "Fill it in."),))
DISK_FULL = OSError(errno.ENOSPC, "No space left on device", "/tmp/out")
BUG = raised(ValueError("a bug"))
PIPE = BrokenPipeError(errno.EPIPE, "Broken pipe")

ALONE = {
    USAGE: (2, ("No such region.", "Name another.")),
    STORE: (2, ("The file is a link.", "Remove it.")),
    GONE: (1, ("The file is gone.", "Put it back.")),
    KEYS: (6, ("No keys.", "Set them.")),
    LOCKED: (1, ("The database cannot be used: database is locked.", "lsof")),
    NO_CONNECTION: (
        1,
        ("The database cannot be used: no connection became free.", "Check the URL"),
    ),
    MANIFEST: (2, ("jobs.csv: 1 fault", "line 2, region: is empty. Fill it in.")),
    DISK_FULL: (1, ("/tmp/out: No space left on device.", "Free space")),
    BUG: (1, ("Traceback", "ValueError: a bug", "Internal error")),
}


def names(error: object) -> str:
    """Return the id of an error in the list of tests."""
    return type(error).__name__


@pytest.mark.parametrize(("error", "expected"), ALONE.items(), ids=map(names, ALONE))
@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "in a group"])
def test_an_error_prints_message_and_remedy(
    error: Exception,
    expected: tuple[int, tuple[str, ...]],
    in_group: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A single error is handled the same, alone or in an exception group."""
    code, words = expected
    assert exit_code_for(group(error) if in_group else error) == code
    printed = capsys.readouterr().err
    assert all(part in printed for part in words)
    assert ("Traceback" in printed) is (error is BUG)


@pytest.mark.parametrize("reverse", [False, True])
def test_each_error_of_a_group_is_printed(
    reverse: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every message and remedy is printed, in whichever order the errors were raised."""
    errors = [*ALONE][:: -1 if reverse else 1]
    assert exit_code_for(group(*errors)) == 2
    printed = capsys.readouterr().err
    for _, words in ALONE.values():
        assert all(part in printed for part in words)


def test_the_same_error_of_many_tasks_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A locked database is reported once, however many tasks it stopped."""
    many = [sqlite_error("database is locked", sqlite3.SQLITE_BUSY) for _ in range(5)]
    assert exit_code_for(group(*many, *[raised(ValueError("a bug")) for _ in range(3)])) == 1
    printed = capsys.readouterr().err
    assert printed.count("database is locked") == 1
    assert printed.count("ValueError: a bug") == 1


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
@pytest.mark.parametrize("reverse", [False, True])
def test_errors_that_the_user_can_fix_decide_the_exit_code(
    errors: tuple[Exception, ...], code: int, reverse: bool
) -> None:
    """An internal error does not hide invalid input or missing credentials."""
    assert exit_code_for(group(*errors[:: -1 if reverse else 1])) == code


def test_the_remedy_is_printed_last(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is printed before the message that says what to do."""
    exit_code_for(group(USAGE, BUG, LOCKED))
    printed = capsys.readouterr().err
    assert printed.index("Traceback") < printed.index("No such region.")
    assert printed.rstrip().endswith("Name another.")


@pytest.mark.parametrize(
    ("errors", "count"), [((PIPE, BUG), 1), ((DISK_FULL, USAGE), 1), ((BUG, USAGE), 0)]
)
def test_stdout_that_cannot_be_written_is_silenced(
    errors: tuple[Exception, ...], count: int, silenced: list[object]
) -> None:
    """A stdout that cannot be written is silenced once.

    Otherwise Python would report the error again at exit.
    """
    exit_code_for(group(*errors))
    assert len(silenced) == count


def test_text_of_a_server_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are replaced, but line breaks and wide blanks remain.

    A message may quote the text of a server, and a file name may have wide blanks.
    """
    exit_code_for(CredentialError("STS: \x1b[31mno.", "Use 夜\u3000间.crt."))
    assert capsys.readouterr().err == "STS:  [31mno.\n  Use 夜\u3000间.crt.\n"
