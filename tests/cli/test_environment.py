"""Commands in unusual environments: locales, terminals, streams, home and working folders."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli_process import at_terminal

PROGRAM = f'orchestrator() {{ "{sys.executable}" -m orchestrator "$@"; }}; '
BATCH = "夜间 😀"
KEYS = {"TENCENTCLOUD_SECRET_ID": "AKIDexample", "TENCENTCLOUD_SECRET_KEY": "example"}
ENQUEUE = "enqueue --image img-1a2b3c4d --region ap-singapore --bucket b-1250000000"


def bash(
    folder: Path, line: str, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of bash in which `orchestrator` is the program.

    Fail if the output has a traceback, which means an internal error.
    """
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})}
    ended = subprocess.run(
        ["bash", "-c", PROGRAM + line], cwd=folder, env=environ, capture_output=True, check=False
    )
    assert b"Traceback" not in ended.stdout + ended.stderr, ended.stderr.decode()
    return ended


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which one job's batch has a Chinese name."""
    folder = tmp_path_factory.mktemp("store")
    ended = bash(folder, f"orchestrator {ENQUEUE} --database-url x.db --batch '{BATCH}'")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-16"])
def test_data_is_utf8_whatever_the_locale_is(store: Path, encoding: str) -> None:
    """JSON and CSV are read by programs, on other machines too."""
    line = "history --json --database-url x.db; orchestrator history --csv --database-url x.db"
    ended = bash(store, f"orchestrator {line}", {"PYTHONIOENCODING": encoding})
    first, *table = ended.stdout.decode("utf-8").splitlines()
    assert json.loads(first)["batch"] == BATCH
    assert table[1].split(",")[1] == BATCH


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "gbk"])
def test_text_escapes_what_the_stream_cannot_encode(store: Path, encoding: str) -> None:
    """A table in an old locale has escapes, and no error."""
    ended = bash(store, "orchestrator show 1 --database-url x.db", {"PYTHONIOENCODING": encoding})
    assert ended.returncode == 0
    assert "\\U0001f600" in ended.stdout.decode(encoding)


def test_a_manifest_on_stdin_is_decoded_by_its_own_rules(tmp_path: Path) -> None:
    """The locale of the terminal does not matter."""
    rows = "image_id,region,bucket,prefix\nimg-1a2b3c4d,ap-singapore,b-1250000000,夜/\n"
    line = (
        f"printf '{rows}' | PYTHONIOENCODING=gbk orchestrator enqueue - --database-url x.db"
        " && orchestrator history --json --database-url x.db"
    )
    ended = bash(tmp_path, line)
    assert json.loads(ended.stdout.splitlines()[-1])["prefix"] == "夜/"


def test_a_file_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Its bytes are escaped in the message."""
    ended = bash(tmp_path, r"orchestrator enqueue $'\xff.csv'")
    assert ended.returncode == 2
    assert b"The manifest \\udcff.csv cannot be read: No such file" in ended.stderr


@pytest.mark.parametrize("variable", ["HOME", "XDG_DATA_HOME"])
def test_a_default_database_that_cannot_be_made_names_home(tmp_path: Path, variable: str) -> None:
    """The message names the variable behind the path, and the setting to use instead."""
    (tmp_path / "file").touch()
    ended = bash(tmp_path, f"orchestrator {ENQUEUE}", {variable: str(tmp_path / "file")})
    assert ended.returncode == 2
    message = ended.stderr.decode()
    assert f"{tmp_path / 'file'} is not a folder" in message
    assert "ORCHESTRATOR_DATABASE_URL" in message
    assert variable in message.split("default path")[1]


TERMINALS: dict[str, tuple[dict[str, str], bool]] = {
    "usual": ({"TERM": "xterm"}, True),
    "NO_COLOR is empty": ({"TERM": "xterm", "NO_COLOR": ""}, True),
    "NO_COLOR": ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    "dumb": ({"TERM": "dumb"}, False),
    "unknown": ({"TERM": "unknown"}, False),
    "unset": ({}, False),
    "no width": ({"TERM": "dumb", "COLUMNS": "0"}, False),
    "20 columns": ({"TERM": "dumb", "COLUMNS": "20", "LINES": "abc"}, False),
    "width is no number": ({"TERM": "dumb", "COLUMNS": "abc"}, False),
}


@pytest.mark.parametrize(("variables", "has_colours"), TERMINALS.values(), ids=TERMINALS)
def test_colours_only_where_they_are_understood(
    store: Path, variables: dict[str, str], has_colours: bool
) -> None:
    """`status` prints the jobs at any terminal, and in colours only at some."""
    # the job is cancelled, because queued jobs have no colour
    bash(store, "orchestrator cancel --all --database-url x.db")
    printed = at_terminal(store, "status --database-url x.db", variables)
    assert b"cancelled 1" in printed
    assert (b"\x1b[" in printed) is has_colours


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"])
def test_a_log_file_gets_plain_text(tmp_path: Path, name: str) -> None:
    """Output to a file has no escape codes, even if a variable asks for colours.

    CI systems set such variables for all commands. A live display would fill the log.
    """
    line = f"orchestrator {ENQUEUE} --database-url x.db; orchestrator run --time-limit 0"
    ended = bash(tmp_path, f"{line} --database-url x.db", {name: "1", "TERM": "xterm", **KEYS})
    assert ended.returncode == 10
    assert b"\x1b" not in ended.stdout + ended.stderr
