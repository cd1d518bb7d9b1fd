"""What `.ci/run` does to the machine on which it runs."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

INSTALL = "apt-get install -y -qq postgresql"
NO_CLUSTER = "pg_conftool /etc/postgresql-common/createcluster.conf set create_main_cluster false"
AS_BEFORE = "pg_conftool /etc/postgresql-common/createcluster.conf remove create_main_cluster"

RECORD = """\
#!/bin/bash
server=${ORCHESTRATOR_TEST_POSTGRESQL:+ with a $ORCHESTRATOR_TEST_POSTGRESQL server}
echo "${0##*/} $*$server" >>"$CALLS"
[ "${0##*/}" != id ] || echo "$USER_ID"
"""
PROGRAMS = ("apt-get", "id", "make", "pg_conftool", "pg_ctlcluster", "sed", "service", "sudo")


def called(folder: Path, *, user_id: int, has_postgresql: bool = False) -> list[str]:
    """Run a copy of the script and return the calls that it made.

    On its path there are only programs that record how they are called.

    Args:
        has_postgresql: whether PostgreSQL is installed.
    """
    if has_postgresql:
        (folder / "installed" / "17" / "bin").mkdir(parents=True)
        (folder / "installed" / "17" / "bin" / "initdb").touch()
    (folder / ".ci").mkdir()
    script = (ROOT / ".ci" / "run").read_text()
    (folder / ".ci" / "run").write_text(
        script.replace("/usr/lib/postgresql", f"{folder}/installed")
    )
    (programs := folder / "bin").mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(RECORD)
        (programs / name).chmod(0o755)
    for name in ("basename", "dirname", "seq", "sleep"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    calls = folder / "calls"
    environ = {"PATH": str(programs), "CALLS": str(calls), "USER_ID": str(user_id)}
    subprocess.run(["/bin/bash", folder / ".ci" / "run"], env=environ, check=True)
    return calls.read_text().splitlines()


def test_ci_neither_creates_nor_changes_a_postgresql_cluster(tmp_path: Path) -> None:
    """CI installs PostgreSQL without a cluster and then restores Debian's settings."""
    calls = called(tmp_path, user_id=0)
    assert calls.index(NO_CLUSTER) < calls.index(INSTALL) < calls.index(AS_BEFORE)
    assert {call.split()[0] for call in calls} == {"apt-get", "id", "make", "pg_conftool"}


def test_ci_installs_nothing_without_root(tmp_path: Path) -> None:
    """The tests that need PostgreSQL are then skipped."""
    calls = called(tmp_path, user_id=1000)
    assert {call.split()[0] for call in calls} == {"id", "make"}


def test_ci_does_not_skip_the_tests_of_postgresql(tmp_path: Path) -> None:
    """If PostgreSQL is installed, a server that does not start makes the tests fail."""
    calls = called(tmp_path, user_id=1000, has_postgresql=True)
    assert "make test PYTHON=python3 with a private server" in calls
