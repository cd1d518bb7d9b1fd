"""The PostgreSQL server of the tests is private, and ends with them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests import postgresql_server as servers


@pytest.fixture(scope="module")
def private() -> Iterator[sa.URL]:
    """A private server, if PostgreSQL is installed."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(servers.private_server())
        except servers.NoServerError as error:
            pytest.skip(str(error))
        yield url


def value(url: sa.URL, query: str) -> str:
    """Return the result of a query as text."""
    text = url.render_as_string(hide_password=False)
    with psycopg.connect(text) as connection:
        row = connection.execute(query.encode()).fetchone()
    return str(row and row[0])


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def is_listening(port: int) -> bool:
    """Return whether a process listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_private_server_listens_on_loopback_only(private: sa.URL) -> None:
    """Other machines cannot reach it, and it creates no socket file."""
    assert value(private, "SHOW listen_addresses") == "127.0.0.1"
    assert value(private, "SHOW unix_socket_directories") == ""
    assert private.port != 5432


def test_a_private_server_requires_its_password(private: sa.URL) -> None:
    """Other users of this machine cannot connect to it."""
    with pytest.raises(psycopg.OperationalError, match="password"):
        servers.administer(private.set(password="guess"), "SELECT 1")


def test_a_private_server_has_its_own_files(private: sa.URL) -> None:
    """Its data is in a temporary folder, not in that of a server installed here."""
    data = value(private, "SHOW data_directory")
    assert "/orchestrator-postgresql-" in data


def test_a_temporary_database_is_dropped_after_the_block(private: sa.URL) -> None:
    """Temporary databases work on a private server as on any other."""
    with servers.fresh_database(private) as url:
        name = value(url, "SELECT current_database()")
        assert name.startswith("orchestrator_test_")
    assert name not in value(private, "SELECT array_agg(datname) FROM pg_database")


_HOLDER = """
import sys
from tests.postgresql_server import private_server
from tests.test_postgresql_server import value
with private_server() as url:
    print(url.port, value(url, "SHOW data_directory"), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["at its end", "killed"])
def test_a_private_server_ends_with_the_tests(
    private: sa.URL, number: signal.Signals | None
) -> None:
    """Whether the process that started it exits or is killed, the server ends."""
    command = [sys.executable, "-c", _HOLDER]
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        listening, data = holder.stdout.readline().decode().split()
        port = int(listening)
        assert is_listening(port)
        if number is not None:
            holder.send_signal(number)
        holder.stdin.close()
        holder.wait()
        wait_for(lambda: not is_listening(port))
        wait_for(lambda: not Path(data).parent.exists())
    assert is_listening(private.port or 0)


def test_missing_programs_are_the_reason_for_a_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tests that need a server are skipped, and the reason is given."""
    monkeypatch.setenv(servers.VARIABLE, servers.PRIVATE)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "_INSTALLED", tmp_path)
    with pytest.raises(servers.NoServerError, match="initdb"), servers.server():
        pass


def test_a_named_server_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are not run on another server than the named one."""
    monkeypatch.setenv(servers.VARIABLE, "postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(servers.NoServerError, match=servers.VARIABLE), servers.server():
        pass


def test_a_running_server_is_used(private: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is started if the environment names one."""
    monkeypatch.setenv(servers.VARIABLE, private.render_as_string(hide_password=False))
    monkeypatch.setattr(servers, "_programs", pytest.fail)
    with servers.server() as found:
        assert found == private


def test_tests_fail_without_the_server_that_the_environment_asks_for() -> None:
    """A server that does not answer, or does not start, must not only cause skips."""
    named = {servers.VARIABLE: "postgresql://postgres@127.0.0.1:1/postgres"}
    one = "tests/limits/test_rate_limiter.py::test_each_key_has_its_own_limit[postgresql]"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **named},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "no PostgreSQL server" in ended.stdout
