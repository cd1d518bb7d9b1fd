"""Database URLs: which are accepted, and that no message repeats a password."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from orchestrator.database_url import (
    DatabaseURLError,
    describe_url,
    parse_database_url,
    without_secrets,
)
from orchestrator.errors import UsageError
from orchestrator.settings import Settings, load_settings


def made_from(value: str) -> str:
    return load_settings({"database_url": value}, {}).sqlalchemy_url


def refusal(value: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings({}, {"ORCHESTRATOR_DATABASE_URL": value})
    assert str(caught.value).startswith("The variable ORCHESTRATOR_DATABASE_URL cannot be used: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("/data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        (" /data/jobs.db ", "sqlite+aiosqlite:////data/jobs.db"),
        ("sqlite:////data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        ("sqlite+pysqlite:////data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        ("sqlite+aiosqlite:////data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        ("sqlite:////my%20data/a b.db", "sqlite+aiosqlite:////my data/a b.db"),
        ("file:/my%20data/jobs.db", "sqlite+aiosqlite:////my data/jobs.db"),
        ("file:///data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        ("file://localhost/data/jobs.db", "sqlite+aiosqlite:////data/jobs.db"),
        ("postgresql://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgres://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("PostgreSQL://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgresql+psycopg://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgresql+psycopg2://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgresql+asyncpg://me@db/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgresql://me@db:/jobs", "postgresql+psycopg://me@db/jobs"),
        ("postgresql://me@[::1]:5433/jobs", "postgresql+psycopg://me@[::1]:5433/jobs"),
        ("postgresql:///jobs", "postgresql+psycopg:///jobs"),
        ("postgresql://%2Frun%2Fpg/jobs", "postgresql+psycopg:///jobs?host=%2Frun%2Fpg"),
        ("postgresql://db/jobs?sslmode=require", "postgresql+psycopg://db/jobs?sslmode=require"),
    ],
)
def test_database_is_a_path_or_a_url(given: str, made: str) -> None:
    """URLs of other drivers get our driver, and file names become absolute paths."""
    assert made_from(given) == made


@pytest.mark.parametrize(
    "name",
    [
        *(
            "jobs.db",
            "~/jobs.db",
            "odd ?#%.db",
            "a:b.db",
            "./user:x@y.db",
            "../a:b@c",
            "~/a:b@c.db",
        ),
        *("/home/a:b@c/x.db", "a@b/c.db", "what?.db"),
    ],
)
def test_database_path_becomes_an_absolute_url(name: str) -> None:
    """A path becomes absolute and keeps all its characters; ~ is the home folder.

    Other relative paths start in the working directory.
    """
    assert sa.make_url(made_from(name)).database == str(Path(name).expanduser().absolute())


def test_home_is_known_in_urls_too() -> None:
    """No folder with the name ~ is made."""
    assert made_from("sqlite:///~/jobs.db") == made_from("~/jobs.db")


@pytest.mark.parametrize(
    ("given", "password"),
    [
        ("postgresql://orch:p%40ss%2Fw%23rd@host/db", "p@ss/w#rd"),
        ("postgresql://orch:a:b@host/db", "a:b"),
        ("postgresql://orch:[ab]@host/db", "[ab]"),
        ("postgresql://orch:a+b%25@host/db", "a+b%"),
    ],
)
def test_passwords_are_read_as_written(given: str, password: str) -> None:
    """What has one reading only needs no escape."""
    assert sa.make_url(made_from(given)).password == password


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://orch:hush@hush/hush#hush@host/db",
        "postgresql://orch:hush@hush@host/db",
        "postgresql://orch:hush/hush@host/db",
        "postgresql://orch:hush?hush@host/db",
        "postgresql://orch:hush#hush@host/db",
        "postgresql://orch:hush%hush@host/db",
        "postgresql://orch:hush hush@host/db",
        "postgresql://orch:hush[hush/]@host/db",
        "postgresql://hush@org@host/db",
        "postgresql://host/db?hush",
        "postgresql://host/db?password=hush@hush",
        "postgresql+psycopg2://orch:hush@hush/hush@host/db",
    ],
)
def test_url_with_two_readings_is_refused_without_repeating_it(url: str) -> None:
    """Nothing that follows the scheme is shown, and the remedy names the escapes."""
    message = refusal(url)
    assert "hush" not in message
    assert "%40" in message
    assert f"{url.partition('://')[0]}://..." in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://orch:hush/db",
        "postgresql://orch@db:99999hush/db",
        "postgresql://orch:hush@::1/db",
        "postgresql://orch:hush@[::1/db",
        "postgresql://orch:hush@db:65536/db",
        "postgresql://orch:hush@db:0/db",
    ],
)
def test_bad_port_is_refused_without_repeating_it(url: str) -> None:
    """Without a host, what stands for the port may be the password."""
    message = refusal(url)
    assert "a port is a number from 1 to 65535" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://me:hush@db/jobs", "mysql:// is not supported"),
        ("postgresql+pg8000://me:hush@db/jobs", "postgresql+pg8000:// is not supported"),
        ("nonsense://hush", "nonsense:// is not supported"),
        ("me:hush://x@db/jobs", "does not begin with a scheme"),
        ("jdbc:postgresql://db/jobs?password=hush", "does not begin with a scheme"),
        ("postgresql:me:hush@db/jobs", "after postgresql there must be ://"),
        ("me:hush@db/jobs", "looks like a URL without a scheme"),
        ("postgresql//me:hush@db/jobs", "looks like a URL without a scheme"),
        ("postgres/me:hush@db/jobs", "looks like a URL without a scheme"),
        ("//me:hush@db/jobs", "looks like a URL without a scheme"),
        ("db?password=hush", "has a password as a parameter"),
        ("//db/jobs?sslmode=require&password=hush", "has a password as a parameter"),
        ("./db/jobs?sslpassword=hush", "has a password as a parameter"),
        ("host=db password=hush", "a connection string of libpq"),
        ("${HUSH_URL}", "the name of a variable"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        (":memory:", "in memory"),
        ("file::memory:", "in memory"),
        ("sqlite://hush.db", "three slashes"),
        ("file://hush/jobs.db", "three slashes"),
        ("sqlite:///hush.db?mode=ro", "parameters of SQLite"),
        ("file:hush.db?mode=ro", "parameters of SQLite"),
        ("sqlite:///file:hush.db?uri=true", "parameters of SQLite"),
        ("hush/", "names a folder"),
        ("sqlite:////hush/", "names a folder"),
        ("~nobody-by-that-name/hush.db", "no such user"),
        ("hush\n.db", "cannot be printed"),
    ],
)
def test_other_value_is_refused_with_its_reason(url: str, reason: str) -> None:
    """The message says what is wrong and what is valid, without the value itself.

    The value may contain a password.
    """
    message = refusal(url)
    assert reason in message
    assert "it must be a file's path, sqlite:///path or postgresql://user@host/name" in message
    assert "hush" not in message


def test_quotes_are_named_without_the_value() -> None:
    """As for every setting; a value in quotes may hold a password, too."""
    value = "'postgresql://me:hush@db/jobs'"
    with pytest.raises(UsageError, match="quotes around it") as caught:
        load_settings({}, {"ORCHESTRATOR_DATABASE_URL": value})
    assert "hush" not in str(caught.value)
    with pytest.raises(DatabaseURLError, match="quotes around it") as refused:
        parse_database_url(value)
    assert "hush" not in str(refused.value)


def test_python_callers_are_not_shown_the_value_either() -> None:
    """Pydantic's own message would repeat its input."""
    with pytest.raises(ValidationError) as caught:
        Settings(database_url="postgresql://me:hush@hush@db/jobs")
    assert "hush" not in str(caught.value)
    with pytest.raises(DatabaseURLError):
        parse_database_url("")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite+aiosqlite:////var/x.db", "/var/x.db"),
        ("postgresql+psycopg://me:hush@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg://me@host/db?password=hush", "postgresql+psycopg://me@host/db"),
    ],
)
def test_a_store_is_named_without_its_password(url: str, name: str) -> None:
    """Messages contain a path, or a URL without the password."""
    assert describe_url(url) == name


def test_messages_of_the_driver_lose_every_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL, its parameters and libpq's variable may each hold one."""
    monkeypatch.setenv("PGPASSWORD", "hush3")
    url = sa.make_url("postgresql://me:hush%401@db/jobs?sslpassword=hush2&password=hush4")
    said = without_secrets('bad value "hush@1", "hush2", "hush3", "hush4" for me', url)
    assert said == 'bad value "***", "***", "***", "***" for me'


@pytest.mark.parametrize(
    ("password", "said", "shown"),
    [
        ("a", 'server at "a", port a: database', 'server at "***", port ***: database'),
        ("(x", "unbalanced (x in y(x", "unbalanced *** in y***"),
        ("p.d", "pad p.d p.dx", "pad *** p.dx"),
    ],
)
def test_a_password_is_not_replaced_within_words(password: str, said: str, shown: str) -> None:
    """A short one would make every message unreadable, and could be read from it."""
    assert without_secrets(said, sa.URL.create("postgresql", password=password)) == shown


def test_the_remedy_names_the_escape_of_an_ampersand() -> None:
    """In a parameter it would begin the next one."""
    assert "& as %26" in refusal("postgresql://host/db?password=hush&hush")
