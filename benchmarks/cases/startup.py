"""The start-up time of commands that have nothing to do."""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.case import Case, Goal, Measurement
from benchmarks.cli_on_store import Store
from benchmarks.command_usage import Command, median_seconds

_TURNS = 15

# typer imports pydantic to read a command's options
_NEEDED = """
import anyio, typer
from pydantic import TypeAdapter
import sqlalchemy.ext.asyncio, sqlalchemy.dialects.sqlite.aiosqlite
"""


def _help() -> Measurement:
    tccli = shutil.which("tccli")
    if tccli is None:
        return Measurement({}, lacks="tccli is not on the PATH")
    with tempfile.TemporaryDirectory() as name:
        ours = Store(Path(name), {}).command("--help")
        theirs = Command([tccli, "--help"], {"HOME": name})
        seconds, other = median_seconds(_TURNS, ours, theirs)
        return Measurement({"seconds": seconds, "of tccli's": seconds / other})


def _history() -> Measurement:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name), {})
        store.run("db", "upgrade")
        bare = Command([sys.executable, "-c", _NEEDED], {})
        seconds, imports = median_seconds(_TURNS, store.command("history"), bare)
        return Measurement({"seconds": seconds, "of its imports alone": seconds / imports})


CASES = (
    Case(
        "startup-help",
        "--help, beside the vendor's",
        _help,
        (Goal("of tccli's", 1),),
    ),
    Case(
        "startup-history",
        "an empty store, beside a Python that only imports what this needs",
        _history,
        (Goal("of its imports alone", 1.3),),
    ),
)
