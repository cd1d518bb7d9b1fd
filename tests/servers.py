"""A PostgreSQL server for tests, where one can be reached, and databases on it."""

import getpass
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

_USERS = ("postgres", "root", getpass.getuser())


def find_server() -> sa.URL | None:
    """The server named by the environment, else one on this machine's usual port."""
    named = os.environ.get("ORCHESTRATOR_TEST_POSTGRESQL")
    usual = (f"postgresql://{user}@127.0.0.1:5432/postgres" for user in dict.fromkeys(_USERS))
    for url in map(sa.make_url, [named] if named else usual):
        try:
            administer(url, "SELECT 1")
        except psycopg.OperationalError:
            continue
        return url
    return None


@contextmanager
def fresh_database(server: sa.URL) -> Iterator[sa.URL]:
    """A database without tables, gone at the end of the block."""
    name = f"orchestrator_test_{secrets.token_hex(6)}"
    administer(server, f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name)
    finally:
        administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def administer(server: sa.URL, statement: str) -> None:
    """Executes a statement outside any transaction."""
    url = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
        connection.execute(statement.encode())


def text_of(url: sa.URL) -> str:
    """The URL as a setting takes it."""
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
