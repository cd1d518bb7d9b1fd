"""A PostgreSQL server for tests, running already or private, and temporary databases on it."""

import getpass
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa

VARIABLE = "ORCHESTRATOR_TEST_POSTGRESQL"
PRIVATE = "private"
"""Value of the variable: start a server even if one is running."""

_USERS = ("postgres", "root", getpass.getuser())
_INSTALLED = Path("/usr/lib/postgresql")
"""Folder in which Debian and Ubuntu install each version."""

_STARTS_WITHIN = 60.0
_ENDS_WITHIN = 60.0

_UNTIL_STDIN_ENDS = '"$@" & server=$!; read -r _; kill -INT $server; wait $server; rm -rf "$0"'
"""Shell script: run a server until standard input is closed, then remove its folder.

Standard input is also closed when the process that started the script is killed."""


class NoServerError(Exception):
    """There is no PostgreSQL server to test with; the message says why."""


@contextmanager
def server() -> Iterator[sa.URL]:
    """Yield a server for tests: a named one, a running one or a private one.

    It is the server that the environment names. Without a name it is a server that is already
    running, or else a private one.

    Raises:
        NoServerError: the named server does not answer, or no server can be started.
    """
    named = os.environ.get(VARIABLE)
    if (found := find_server()) is not None:
        yield found
    elif named and named != PRIVATE:
        raise NoServerError(f"the server that {VARIABLE} names does not answer")
    else:
        with private_server() as started:
            yield started


def find_server() -> sa.URL | None:
    """Return the server that the environment names, else one on the default port."""
    named = os.environ.get(VARIABLE)
    if named == PRIVATE:
        return None
    default = [f"postgresql://{user}@127.0.0.1:5432/postgres" for user in dict.fromkeys(_USERS)]
    for url in map(sa.make_url, [named] if named else default):
        if _answers(url):
            return url
    return None


@contextmanager
def private_server() -> Iterator[sa.URL]:
    """Run a server in a temporary folder until the block or this process ends.

    It listens on a free port of 127.0.0.1 only, and requires a password. PostgreSQL refuses to run
    as root; then it runs as another user.

    Raises:
        NoServerError: PostgreSQL is not installed, or does not start.
    """
    programs, account = _programs(), _account()
    password = secrets.token_hex(16)
    url = sa.URL.create(
        "postgresql", "postgres", password, "127.0.0.1", _free_port(), database="postgres"
    )
    with tempfile.TemporaryDirectory(prefix="orchestrator-postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if account is not None:
            for path in (folder, folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        _make_cluster(programs, folder, account)
        with _running(programs, folder, account, url):
            yield url


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs.

    The programs on PATH come first, then those of the newest installed version.
    """
    found = shutil.which("initdb")
    on_path = [Path(found).resolve().parent] if found else []
    versions = [path for path in _INSTALLED.glob("*") if path.name.replace(".", "").isdigit()]
    versions.sort(key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)
    for folder in [*on_path, *(version / "bin" for version in versions)]:
        if all((folder / program).is_file() for program in ("initdb", "postgres")):
            return folder
    raise NoServerError(
        f"none answers on 127.0.0.1:5432, and there is no initdb in {_INSTALLED}/*/bin"
    )


def _account() -> pwd.struct_passwd | None:
    """Return the user who runs the server; ``None`` is the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoServerError("it does not run as root, and there is no user postgres")


def _make_cluster(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
    options = (
        *("--pgdata", f"{folder}/data", "--username", "postgres", "--auth", "scram-sha-256"),
        *("--pwfile", f"{folder}/password", "--encoding", "UTF8", "--no-locale", "--no-sync"),
    )
    with _start([f"{programs}/initdb", *options], folder, account) as made:
        if made.wait() != 0:
            raise NoServerError(f"initdb fails: {_log(folder)}")


@contextmanager
def _running(
    programs: Path, folder: Path, account: pwd.struct_passwd | None, url: sa.URL
) -> Iterator[None]:
    """Run the server until the end of the block."""
    settings = (
        *("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"),
        # faster; the data need not survive a crash of the machine
        *("fsync=off", "full_page_writes=off"),
    )
    options = [option for setting in settings for option in ("-c", setting)]
    command = [f"{programs}/postgres", "-D", f"{folder}/data", "-p", str(url.port), *options]
    watched = _start(["sh", "-c", _UNTIL_STDIN_ENDS, str(folder), *command], folder, account)
    assert watched.stdin is not None
    try:
        _wait_for_start(url, folder)
        yield
    finally:
        watched.stdin.close()
        watched.wait(_ENDS_WITHIN)


def _start(
    command: Sequence[str], folder: Path, account: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # so that Ctrl-C does not end it before the tests
            start_new_session=True,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )


def _wait_for_start(url: sa.URL, folder: Path) -> None:
    ends_at = time.monotonic() + _STARTS_WITHIN
    while not _answers(url):
        if time.monotonic() > ends_at:
            raise NoServerError(f"it does not start: {_log(folder)}")
        time.sleep(0.05)


def _log(folder: Path) -> str:
    """Return the end of the programs' output."""
    return (folder / "log").read_text(errors="replace").strip()[-500:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: sa.URL) -> bool:
    try:
        administer(url, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def fresh_database(server: sa.URL) -> Iterator[sa.URL]:
    """Create a database without tables; drop it at the end of the block."""
    name = f"orchestrator_test_{secrets.token_hex(6)}"
    administer(server, f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name)
    finally:
        administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def administer(server: sa.URL, statement: str) -> None:
    """Execute a statement outside any transaction."""
    url = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
        connection.execute(statement.encode())


def text_of(url: sa.URL) -> str:
    """Return the URL as the setting ``database_url`` accepts it."""
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
