"""The settings: what a user may configure.

Precedence: command-line flag > environment variable > TOML file > default.

*Settings* are the values that a user may set in any of these places; they stay the same for every
command. *Options* are what a command is called with; some of them are flags that set a setting.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from orchestrator.database_url import DatabaseURLError, is_text, parse_database_url
from orchestrator.errors import UsageError
from orchestrator.home_folder import NO_HOME
from orchestrator.loopback import is_loopback
from orchestrator.wording import REMOVE_QUOTES, has_quotes

_SITE_ENDPOINTS = {
    "cvm_endpoint": {
        "intl": "https://cvm.intl.tencentcloudapi.com",
        "mainland": "https://cvm.tencentcloudapi.com",
    },
    "sts_endpoint": {
        "intl": "https://sts.intl.tencentcloudapi.com",
        "mainland": "https://sts.tencentcloudapi.com",
    },
}
"""Public endpoints of the vendor's two sites (source: its API pages, request domains)."""

_PLACEHOLDERS = {"cvm_endpoint": ("region",), "cos_endpoint": ("bucket", "region")}
"""Placeholders that an endpoint may contain."""

_PREFIX = "ORCHESTRATOR_"
_CONFIG = f"{_PREFIX}CONFIG"
_MAX_DURATION = timedelta(days=365)
"""Much longer durations would overflow when they are added to a date."""

_MIN_RATE = 0.001
"""Requests per second. At a much lower rate the time of the next request would overflow."""

_HTTPS = (
    "a base URL with https:// (http:// only on loopback, or with ORCHESTRATOR_ALLOW_PLAIN_HTTP)"
)


def _reject_boolean(value: object) -> object:
    # pydantic would accept true as the number 1
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")  # noqa: TRY004 - pydantic needs this one
    return value


def _from_seconds(value: object) -> object:
    # pydantic would also accept other notations, such as PT90S
    return float(value) if isinstance(value, str) else _reject_boolean(value)


_Count = Annotated[int, BeforeValidator(_reject_boolean)]
_Number = Annotated[float, BeforeValidator(_reject_boolean), Field(allow_inf_nan=False)]
_Duration = Annotated[
    timedelta, BeforeValidator(_from_seconds), Field(ge=timedelta(), le=_MAX_DURATION)
]


class VerifyMode(StrEnum):
    """Whether exports are looked up in the bucket."""

    AUTO = "auto"
    """Where it is permitted."""
    REQUIRED = "required"
    """Always: without permission to read a bucket its exports are halted."""
    OFF = "off"
    """Never: accepted jobs stay accepted."""


class ResendMode(StrEnum):
    """When an unknown job may be sent again without an operator's decision."""

    PROVEN = "proven"
    """When an accepted job of its bucket was found under its tag before."""
    ALWAYS = "always"
    """After `Settings.resend_after`, whatever is known of the bucket."""
    NEVER = "never"


_NOT_TEXT = "its path has control characters, or bytes that are no text in this locale"


def _default_database() -> str:
    remedy = "Set HOME to another folder, or name a database with ORCHESTRATOR_DATABASE_URL."
    try:
        path = str(platformdirs.user_data_path("orchestrator") / "orchestrator.db")
    except RuntimeError:
        raise UsageError(f"There is no folder for the database: {NO_HOME}.", remedy) from None
    if not is_text(path):
        raise UsageError(f"The default database {path!r} cannot be used: {_NOT_TEXT}.", remedy)
    return path


class Settings(BaseModel):
    """Every setting, as `load_settings` returns it; a description says which values are valid."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    # not shown, because a URL may contain a password
    database_url: str = Field(
        default_factory=_default_database,
        repr=False,
        description="a file's path, sqlite:///path or postgresql://user@host/name",
    )
    allow_network_store: bool = Field(default=False, description="true or false")
    # before the endpoints: their validator reads these two
    allow_plain_http: bool = Field(default=False, description="true or false")
    site: Literal["intl", "mainland"] = Field(default="intl", description="intl or mainland")
    cvm_endpoint: str = Field(default="", description=f"{_HTTPS}; it may contain {{region}}")
    cos_endpoint: str = Field(
        default="https://{bucket}.cos.{region}.myqcloud.com",
        description=f"{_HTTPS}; it may contain {{bucket}} and {{region}}",
    )
    sts_endpoint: str = Field(default="", description=_HTTPS)
    metadata_endpoint: str = Field(
        default="http://metadata.tencentyun.com", description="a base URL with http:// or https://"
    )
    rate: _Number = Field(
        default=20,
        ge=0,
        description=f"a number of requests per second, {_MIN_RATE} at least, or 0 for no limit",
    )
    concurrency: _Count = Field(
        default=32, ge=1, le=512, description="a whole number from 1 to 512"
    )
    verify: VerifyMode = Field(default=VerifyMode.AUTO, description="auto, required or off")
    # None, which is written "adaptive", depends on the age of the export
    verify_interval: Annotated[
        _Duration | None, BeforeValidator(lambda value: None if value == "adaptive" else value)
    ] = Field(
        default=None, ge=timedelta(seconds=0.2), description="seconds, 0.2 at least, or adaptive"
    )
    request_timeout: _Duration = Field(
        default=timedelta(seconds=30), gt=timedelta(), description="seconds, more than 0"
    )
    resend_after: _Duration = Field(
        default=timedelta(seconds=120), description="seconds, 0 or more"
    )
    resend: ResendMode = Field(default=ResendMode.PROVEN, description="proven, always or never")
    quota_wait: _Duration = Field(default=timedelta(hours=1), description="seconds, 0 or more")
    # the name becomes part of a file name
    profile: str = Field(
        default="default",
        pattern=r"^[^/\\\x00-\x1f\x7f-\x9f]+$",
        description="a name without slashes",
    )
    export_deadline: _Duration = Field(
        default=timedelta(days=1), gt=timedelta(), description="seconds, more than 0"
    )
    max_attempts: _Count = Field(default=8, ge=1, description="a whole number, 1 or more")

    @property
    def is_profile_named(self) -> bool:
        """Whether the user has named the profile to this program.

        Then its keys precede keys from elsewhere.
        """
        return "profile" in self.model_fields_set

    @property
    def sqlalchemy_url(self) -> str:
        """The URL of the database for SQLAlchemy's async engine, with the password."""
        return parse_database_url(self.database_url).render_as_string(hide_password=False)

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, value: str) -> str:
        parse_database_url(value)
        return value

    @field_validator("rate")
    @classmethod
    def _check_rate(cls, value: float) -> float:
        if 0 < value < _MIN_RATE:
            raise ValueError("too low")
        return value

    @field_validator("cvm_endpoint", "cos_endpoint", "sts_endpoint", "metadata_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str, info: ValidationInfo) -> str:
        name = str(info.field_name)
        # site is missing in the data if its own value is not valid
        default = _SITE_ENDPOINTS.get(name, {}).get(info.data.get("site", "intl"), "")
        is_http_allowed = name == "metadata_endpoint" or bool(info.data.get("allow_plain_http"))
        return _base_url(value or default, _PLACEHOLDERS.get(name, ()), allow_http=is_http_allowed)


def _base_url(url: str, placeholders: tuple[str, ...], *, allow_http: bool) -> str:
    """Return a URL without its last slash.

    Raises:
        ValueError: it is not a base URL, or it is unencrypted and leads to another machine.
    """
    filled = url
    for placeholder in placeholders:
        filled = filled.replace(f"{{{placeholder}}}", "x")
    parts = urlsplit(filled)
    is_plain = not set("{}@?# ") & set(filled) and filled.isprintable()
    # .port raises ValueError itself if it is not a number
    if not (is_plain and parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0):
        raise ValueError("not a base URL")
    # requests contain tokens, and answers decide what is sent again
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise ValueError("not encrypted")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as the user wrote it, and where, for messages."""

    value: object
    origin: str


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Merge the values of flags, environment and TOML file.

    Args:
        flags: by the setting's name, ``None`` if not given. ``config`` names the TOML file.
        environ: the environment; an empty variable counts as not given.

    Raises:
        UsageError: the file cannot be read, or a key or value in any place is not valid.
    """
    of_tccli = _from_environ(environ, {"profile": "TCCLI_PROFILE"})
    given = {
        **of_tccli,
        **_from_file(flags.get("config") or environ.get(_CONFIG)),
        **_from_environ(environ, _variables()),
        **{
            name: _Given(value, f"The flag --{name.replace('_', '-')}")
            for name, value in flags.items()
            if value is not None and name != "config"
        },
    }
    for one in given.values():
        if isinstance(one.value, str) and has_quotes(one.value):
            raise UsageError(f"{one.origin} has quotes around it.", REMOVE_QUOTES)
    try:
        settings = Settings.model_validate({name: one.value for name, one in given.items()})
    except ValidationError as error:
        lines = [_explain(detail, given) for detail in error.errors()]
        remedy = "Correct the value, or remove it to use the default."
        raise UsageError("\n".join(lines), remedy) from None
    if given.get("profile") is of_tccli.get("profile"):
        # it names tccli's profile: here it is only another default
        settings.model_fields_set.discard("profile")
    return settings


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note for each variable that looks like a setting but is not one."""
    known = [*_variables().values(), _CONFIG]
    unknown = sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    return tuple(
        f"The variable {name} is not a setting and is ignored.{_nearest(name, known)}"
        for name in unknown
    )


def _from_file(name: object) -> dict[str, _Given]:
    if not name:
        return {}
    path = Path(str(name))
    remedy = f"Correct the file, or name another one with --config or {_CONFIG}."
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        reason = f"The settings file {path} cannot be read: {error.strerror}."
        raise UsageError(reason, remedy) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: is not valid UTF-8.", remedy) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The settings file {path} is not TOML: {error}.", remedy) from None
    return {
        key: _Given(value, f"{path}, line {_line_of(key, text)}: {key}")
        for key, value in table.items()
    }


def _line_of(key: str, text: str) -> int:
    # tomllib does not report the lines of keys
    found = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _variables() -> dict[str, str]:
    """Return the variable of each setting."""
    return {name: _PREFIX + name.upper() for name in Settings.model_fields}


def _from_environ(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name: _Given(value, f"The variable {variable}")
        for name, variable in variables.items()
        if (value := environ.get(variable, "").strip())
    }


def _explain(detail: ErrorDetails, given: Mapping[str, _Given]) -> str:
    name = str(detail["loc"][0])
    one = given[name]
    field = Settings.model_fields.get(name)
    if isinstance(one.value, dict):
        return f"{one.origin} is a table; write settings outside tables, such as rate = 20."
    if field is None:
        return f"{one.origin} is not a setting.{_nearest(name, list(Settings.model_fields))}"
    # a value that may contain a password is not repeated
    is_secret = not field.repr or "@" in str(one.value)
    problem = "cannot be used" if is_secret else f"is {repr(one.value)[:80]}"
    reason = detail.get("ctx", {}).get("error")
    if isinstance(reason, DatabaseURLError):
        problem += f": {reason}"
    return f"{one.origin} {problem}; it must be {field.description}."


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else f" Known names: {', '.join(known)}."
