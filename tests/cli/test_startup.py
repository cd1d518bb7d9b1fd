"""What a command imports before it answers: somebody waits for that."""

import subprocess
import sys

import pytest

_TOLD = """
import sys
from orchestrator.cli.main import main
try:
    main()
finally:
    print("", *sys.modules, file=sys.stderr)
"""


_OF_A_RUN = {"alembic", "httpx", "orchestrator.cloud", "orchestrator.worker.worker", "rich"}


@pytest.mark.parametrize(
    ("words", "needless"),
    [
        ("--help", {"pydantic", "sqlalchemy", "orchestrator.model", *_OF_A_RUN}),
        ("history", _OF_A_RUN),
        ("status", _OF_A_RUN),
        ("enqueue --image=img-aaaa --region=ap-tokyo --bucket=backup-1250000000", _OF_A_RUN),
    ],
)
def test_a_command_imports_only_what_it_works_with(
    words: str, needless: set[str], sqlite_url: str
) -> None:
    """Help needs no database; to list, to count and to enqueue nobody needs the cloud."""
    command = [sys.executable, "-c", _TOLD, *words.split()]
    environ = {"ORCHESTRATOR_DATABASE_URL": sqlite_url}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    imported = set(ended.stderr.split())
    assert "typer" in imported
    assert imported.isdisjoint(needless)
