"""What a user may set: flag > environment > TOML file > default, each value with its origin."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
import sqlalchemy as sa
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

from orchestrator.errors import UsageError
from orchestrator.loopback import is_loopback

CVM_ENDPOINTS = {
    "intl": "https://cvm.intl.tencentcloudapi.com",
    "mainland": "https://cvm.tencentcloudapi.com",
}
"""The public endpoint of either site (source: the vendor's API page, request domains)."""

STS_ENDPOINTS = {
    "intl": "https://sts.intl.tencentcloudapi.com",
    "mainland": "https://sts.tencentcloudapi.com",
}

_PREFIX = "ORCHESTRATOR_"
_CONFIG = f"{_PREFIX}CONFIG"
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
# moments are reckoned from these, and a calendar ends
_A_YEAR = 365 * 86_400.0


_HTTPS = (
    "a base URL with https:// (http:// only on loopback, or with ORCHESTRATOR_ALLOW_PLAIN_HTTP)"
)


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("neither true nor false is a number")  # noqa: TRY004  # pydantic's rule
    return value


def _adaptive(value: object) -> object:
    return None if value == "adaptive" else value


_Count = Annotated[int, BeforeValidator(_no_truth)]
_Number = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
_Seconds = Annotated[_Number, Field(le=_A_YEAR)]


class Settings(BaseModel):
    """Every setting; `load_settings` makes them. A description says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # never shown: it may hold a password
    database_url: str = Field(
        default_factory=lambda: str(
            platformdirs.user_data_path("orchestrator") / "orchestrator.db"
        ),
        repr=False,
        description="a file's path, sqlite:///path or postgresql://user@host/name",
    )
    # before the endpoints, whose validators ask for it
    allow_plain_http: bool = Field(False, description="true or false")
    site: Literal["intl", "mainland"] = Field("intl", description="intl or mainland")
    cvm_endpoint: str = Field("", description=f"{_HTTPS}; it may hold {{region}}")
    cos_endpoint: str = Field(
        "https://{bucket}.cos.{region}.myqcloud.com",
        description=f"{_HTTPS}; it may hold {{bucket}} and {{region}}",
    )
    sts_endpoint: str = Field("", description=_HTTPS)
    metadata_endpoint: str = Field(
        "http://metadata.tencentyun.com", description="a base URL with http:// or https://"
    )
    rate: _Number = Field(20, ge=0, description="a number of requests per second, 0 for no limit")
    concurrency: _Count = Field(32, ge=1, le=512, description="a whole number from 1 to 512")
    verify: Literal["auto", "required", "off"] = Field("auto", description="auto, required or off")
    verify_interval: Annotated[_Seconds | None, BeforeValidator(_adaptive)] = Field(
        None, ge=0.2, description="seconds, 0.2 at least, or adaptive"
    )
    request_timeout: _Seconds = Field(30, gt=0, description="seconds, more than 0")
    resend_after: _Seconds = Field(120, ge=0, description="seconds, 0 or more")
    resend: Literal["proven", "always", "never"] = Field(
        "proven", description="proven, always or never"
    )
    quota_wait: _Seconds = Field(3600, ge=0, description="seconds, 0 or more")
    profile: str = Field(
        "default", pattern=r"^[^/\\\x00-\x1f]+$", description="a name without slashes"
    )
    export_deadline: _Seconds = Field(86_400, gt=0, description="seconds, more than 0")
    max_attempts: _Count = Field(8, ge=1, description="a whole number, 1 or more")

    @property
    def sqlalchemy_url(self) -> str:
        """The store as SQLAlchemy's async engine takes it, password included."""
        return _async_url(self.database_url).render_as_string(hide_password=False)

    @field_validator("database_url")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        if not value or not value.isprintable():
            raise ValueError("no path")
        try:
            url = _async_url(value)
        except (sa.exc.ArgumentError, RuntimeError) as error:  # no URL, or no such user's home
            raise ValueError("no place") from error
        if url.drivername == _DRIVERS["sqlite"]:
            if url.database in {None, "", ":memory:"}:
                raise ValueError("a store in memory forgets")
        elif url.get_backend_name() != "postgresql":
            raise ValueError("no database that we know")
        return value

    @field_validator("cvm_endpoint")
    @classmethod
    def _by_site(cls, value: str, info: ValidationInfo) -> str:
        url = _base_url(value or CVM_ENDPOINTS[info.data.get("site", "intl")], "region")
        return _encrypted(url, info)

    @field_validator("sts_endpoint")
    @classmethod
    def _sts_by_site(cls, value: str, info: ValidationInfo) -> str:
        return _encrypted(_base_url(value or STS_ENDPOINTS[info.data.get("site", "intl")]), info)

    @field_validator("metadata_endpoint")
    @classmethod
    def _of_this_machine(cls, value: str) -> str:
        return _base_url(value)

    @field_validator("cos_endpoint")
    @classmethod
    def _per_bucket(cls, value: str, info: ValidationInfo) -> str:
        return _encrypted(_base_url(value, "bucket", "region"), info)


def _async_url(value: str) -> sa.URL:
    if "://" not in value:
        path = Path(value).expanduser().absolute()
        return sa.URL.create(_DRIVERS["sqlite"], database=str(path))
    url = sa.make_url(value)
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _base_url(value: str, *places: str) -> str:
    filled = value
    for place in places:
        filled = filled.replace(f"{{{place}}}", "x")
    parts = urlsplit(filled)
    plain = not set("{}@?# ") & set(filled) and filled.isprintable()
    # .port raises ValueError itself where it is no number
    if not (plain and parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0):
        raise ValueError("no base URL")
    return value.rstrip("/")


def _encrypted(url: str, info: ValidationInfo) -> str:
    """Refuse http:// beyond this machine: requests carry tokens, answers decide what is sent."""
    parts = urlsplit(url)
    is_permitted = info.data.get("allow_plain_http") or is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not is_permitted:
        raise ValueError("plain HTTP")
    return url


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was typed, and where."""

    value: object
    origin: str


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Merges what was given anywhere.

    Args:
        flags: by the setting's name; ``None`` means not given. ``config`` names the TOML file.
        environ: the environment; a variable that is empty counts as not given.

    Raises:
        UsageError: the file cannot be read, or a key or value cannot be used; says which and why.
    """
    given = {
        **_from_tccli(environ),
        **_from_file(flags.get("config") or environ.get(_CONFIG)),
        **_from_environ(environ),
        **_from_flags(flags),
    }
    try:
        return Settings.model_validate({name: one.value for name, one in given.items()})
    except ValidationError as error:
        lines = [_explain(detail, given) for detail in error.errors()]
        remedy = "Correct this, or leave it out for the default."
        raise UsageError("\n".join(lines), remedy) from None


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A note on each variable that looks like a setting and is none."""
    known = [*(_PREFIX + name.upper() for name in Settings.model_fields), _CONFIG]
    strange = sorted(n for n in environ if n.startswith(_PREFIX) and n not in known)
    return tuple(f"The variable {n} means nothing here.{_nearest(n, known)}" for n in strange)


def _from_tccli(environ: Mapping[str, str]) -> dict[str, _Given]:
    name = environ.get("TCCLI_PROFILE", "").strip()
    return {"profile": _Given(name, "The variable TCCLI_PROFILE")} if name else {}


def _from_file(name: object) -> dict[str, _Given]:
    if not name:
        return {}
    path = Path(str(name))
    remedy = f"Mend it, or name another with --config or {_CONFIG}."
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
    found = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _from_environ(environ: Mapping[str, str]) -> dict[str, _Given]:
    variables = {name: _PREFIX + name.upper() for name in Settings.model_fields}
    return {
        name: _Given(value, f"The variable {variable}")
        for name, variable in variables.items()
        if (value := environ.get(variable, "").strip())
    }


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Given]:
    return {
        name: _Given(value, f"The flag --{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None and name != "config"
    }


def _explain(detail: ErrorDetails, given: Mapping[str, _Given]) -> str:
    name = str(detail["loc"][0])
    one = given[name]
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{one.origin} is no setting.{_nearest(name, list(Settings.model_fields))}"
    # what may hold a password is not repeated
    secret = not field.repr or "@" in str(one.value)
    fate = "cannot be used" if secret else f"is {repr(one.value)[:80]}"
    return f"{one.origin} {fate}; it has to be {field.description}."


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else f" Known are {', '.join(known)}."
