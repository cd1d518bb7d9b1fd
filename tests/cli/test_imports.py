"""The modules that a command imports: imports are most of its start-up time."""

import subprocess
import sys

import pytest

_PRINT_MODULES = """
import sys
from orchestrator.cli.main import main
try:
    main()
finally:
    print("", *sys.modules, file=sys.stderr)
"""


_FOR_RUN = {"alembic", "httpx", "orchestrator.cloud", "orchestrator.worker.worker", "rich"}


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        ("--help", {"pydantic", "sqlalchemy", "orchestrator.model", *_FOR_RUN}),
        ("history", _FOR_RUN),
        ("status", _FOR_RUN),
        ("enqueue --image=img-aaaa --region=ap-tokyo --bucket=backup-1250000000", _FOR_RUN),
    ],
)
def test_a_command_imports_only_what_it_needs(
    words: str, unneeded: set[str], sqlite_url: str
) -> None:
    """`history`, `status` and `enqueue` import no HTTP client.

    `--help` imports no database library either.
    """
    command = [sys.executable, "-c", _PRINT_MODULES, *words.split()]
    environ = {"ORCHESTRATOR_DATABASE_URL": sqlite_url}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    imported = set(ended.stderr.split())
    assert "typer" in imported
    assert imported.isdisjoint(unneeded)
