"""Database URLs: read only what can be read with certainty, and never show a password."""

import os
import re
import unicodedata
from urllib.parse import unquote

import sqlalchemy as sa

from orchestrator.home_folder import absolute_path

_SQLITE = "sqlite+aiosqlite"
_POSTGRESQL = "postgresql+psycopg"
_SCHEMES = {
    **dict.fromkeys(("sqlite", "sqlite+pysqlite", _SQLITE), _SQLITE),
    **{
        f"{name}{driver}": _POSTGRESQL
        for name in ("postgres", "postgresql")
        for driver in ("", "+psycopg", "+psycopg_async", "+psycopg2", "+psycopg2cffi", "+asyncpg")
    },
}
"""The schemes that are accepted, each with its driver here: URLs are copied from other programs."""

_SCHEME = re.compile(r"[A-Za-z][\w+.-]*")
_SCHEME_WITHOUT_SLASHES = re.compile(r"(sqlite|postgresql|postgres|mysql|mariadb|jdbc)[\w+]*:")
_CREDENTIALS = re.compile(r"(?!/[^/]|\.{1,2}/|~).*:.*@")
"""A URL with a missing or broken scheme, which a path with a clear beginning is not."""

_LIBPQ_WORDS = re.compile(
    r"(^|\s)(host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*="
)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(?::(\d*))?")
_PARAMETER = re.compile(r"[a-z_]+=.*")

_WORD_EDGE = r"(?!(?<=\w)\w)"
"""A place that is not between two characters of a word."""

_UNCERTAIN = (
    "cannot be read with certainty, because in a user name, a password or a parameter @ must be "
    "written as %40, / as %2F, : as %3A, ? as %3F, # as %23, & as %26, % as %25 and a blank as %20"
)
_IN_MEMORY = "a database in memory is lost when the process ends"
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret")
_SECRET_IN_QUERY = re.compile(rf"\?(.*&)?({'|'.join(_SECRET_PARAMETERS)})=")
_SECRET_VARIABLES = ("PGPASSWORD",)


class DatabaseURLError(ValueError):
    """The value is not a database; the message repeats nothing that follows the scheme."""


def parse_database_url(value: str) -> sa.URL:
    """Return the URL for SQLAlchemy's async engine of a URL or of a file's path.

    Raises:
        DatabaseURLError: it is neither, its driver is not supported, or a URL can be read in two
            ways, as with an unescaped character in its password.
    """
    text = value.strip()
    if not text or not is_text(text):
        raise DatabaseURLError("it is empty or contains characters that cannot be printed")
    if text[0] in "'\"":
        raise DatabaseURLError("it has quotes around it")
    if text.startswith("$") or "${" in text:
        raise DatabaseURLError("it contains the name of a variable instead of its value")
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme or scheme.lower() == "file":
        return _file(text)
    if not _SCHEME.fullmatch(scheme):
        raise DatabaseURLError("it does not begin with a scheme such as postgresql://")
    driver = _SCHEMES.get(scheme.lower())
    if driver is None:
        raise DatabaseURLError(f"{scheme}:// is not supported")
    return _sqlite(rest) if driver == _SQLITE else _postgresql(scheme, rest)


def _file(text: str) -> sa.URL:
    """Return the URL of a file that a path or a ``file:`` URI names."""
    if text[:5].lower() == "file:":
        text = _path_of_file_uri(text)
    elif (found := _SCHEME_WITHOUT_SLASHES.match(text)) is not None:
        raise DatabaseURLError(f"after {found[1]} there must be ://")
    elif _LIBPQ_WORDS.search(text):
        raise DatabaseURLError("it is a connection string of libpq, not a URL")
    elif _SECRET_IN_QUERY.search(text):
        raise DatabaseURLError("it has a password as a parameter, but is not a URL with ://")
    elif _CREDENTIALS.match(text):
        raise DatabaseURLError("it looks like a URL without a scheme (a path may begin with ./)")
    return _sqlite_url(text)


def _path_of_file_uri(uri: str) -> str:
    path = uri[5:]
    if path.startswith("//"):  # file://host/path: only this machine's own files can be opened
        host, slash, path = path[2:].partition("/")
        if host not in {"", "localhost"}:
            raise DatabaseURLError("a file: URI has three slashes before an absolute path")
        path = slash + path
    if "?" in path or "#" in path:
        raise DatabaseURLError("parameters of SQLite are not supported (write ? as %3F in a name)")
    return unquote(path)


def _sqlite(rest: str) -> sa.URL:
    if rest in {"", "/"}:
        raise DatabaseURLError(_IN_MEMORY)
    if not rest.startswith("/"):
        raise DatabaseURLError(
            "sqlite:// needs three slashes before a relative path and four before an absolute one"
        )
    if "?" in rest:
        raise DatabaseURLError("parameters of SQLite are not supported (write ? as %3F in a name)")
    path = unquote(rest[1:])
    return _file(path) if path[:5].lower() == "file:" else _sqlite_url(path)


def _sqlite_url(path: str) -> sa.URL:
    if path == ":memory:":
        raise DatabaseURLError(_IN_MEMORY)
    if not path or path.endswith(("/", "/.", "/..")) or path in {".", "..", "~"}:
        raise DatabaseURLError("it names a folder, not a file in it")
    try:
        absolute = absolute_path(path)
    except RuntimeError:
        raise DatabaseURLError("there is no such user as the one after ~") from None
    return sa.URL.create(_SQLITE, database=str(absolute))


def is_text(path: str) -> bool:
    """Return whether a path has no control characters and no bytes that are not text."""
    # not isprintable(): it would refuse the wide blank of Chinese folder names
    return not {unicodedata.category(character) for character in path} & {"Cc", "Cs"}


def _postgresql(scheme: str, rest: str) -> sa.URL:
    """Return the URL of a server, if there is only one way to read it."""
    location, _, query = rest.partition("?")
    authority, slash, name = location.partition("/")
    credentials, at, address = authority.rpartition("@")
    # an @ elsewhere shows that a character in the password ended the authority too early
    is_certain = (
        "@" not in credentials + name + query
        and "#" not in rest
        and not any(character.isspace() for character in rest)
        and not _BAD_ESCAPE.search(rest)
        and all(_PARAMETER.fullmatch(one) for one in query.split("&") if one)
    )
    if not is_certain:
        raise DatabaseURLError(f"{scheme}://... {_UNCERTAIN}")
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or (found[2] and not 0 < int(found[2]) < 65536):
        raise DatabaseURLError(
            f"{scheme}://... has no valid host and port: a port is a number from 1 to 65535, an "
            "IPv6 address is in brackets, and special characters in a password are escaped "
            "(@ is %40, : is %3A, / is %2F)"
        )
    host, port = found[1], f":{found[2]}" if found[2] else ""
    socket_folder = host if "%2F" in host.upper() else ""  # libpq's form of a Unix socket
    address = port if socket_folder else f"{host}{port}"
    url = sa.make_url(f"{_POSTGRESQL}://{credentials}{at}{address}{slash}{name}?{query}")
    return url.update_query_dict({"host": unquote(socket_folder)}) if socket_folder else url


def describe_url(url: str) -> str:
    """Return the store's name for messages: a file path, or a URL without password."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.database or ""
    # a query string may contain a password, too
    return parsed.set(query={}).render_as_string(hide_password=True)


def without_secrets(text: str, url: sa.URL) -> str:
    """Return a libpq or psycopg message without the passwords of a connection."""
    parameters = (url.query.get(name) for name in _SECRET_PARAMETERS)
    variables = (os.environ.get(name) for name in _SECRET_VARIABLES)
    for secret in (url.password, *parameters, *variables):
        for one in (secret,) if isinstance(secret, str) else secret or ():
            if one:
                # not within a word: a short password would tear messages to pieces
                text = re.sub(_WORD_EDGE + re.escape(one) + _WORD_EDGE, "***", text)
    return text
