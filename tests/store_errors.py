"""Store errors for tests, built as the drivers and SQLAlchemy build them."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError


def sqlite_error(message: str, code: int) -> OperationalError:
    """Return an error as the sqlite3 module raises it, with its result code."""
    original = sqlite3.OperationalError(message)
    original.sqlite_errorcode = code
    return OperationalError("BEGIN", None, original)


def server_error(sqlstate: str | None, message: str = "no") -> DBAPIError:
    """Return an error as psycopg raises it, with the server's SQLSTATE where it gave one."""
    original = psycopg.OperationalError(message)
    original.sqlstate = sqlstate
    return OperationalError("BEGIN", None, original)


def misuse_error() -> DBAPIError:
    """Return an error that the sqlite3 module raises itself, without a result code."""
    return InterfaceError("BEGIN", None, sqlite3.InterfaceError("Cursor needed to be reset"))
