"""Where keys come from: the environment, a tccli profile, the vendor's shared file.

A kind of source that fetches its keys (an instance's role, an STS role) is one more class
with `CredentialSource`'s two methods, and one more line in `find_credentials`.
"""

import json
import re
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread

from orchestrator.clock import Clock, SystemClock, iso
from orchestrator.errors import CredentialError

_ENVIRONMENT = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN")
_TCCLI_FIELDS = ("secretId", "secretKey", "token")
_INI_FIELDS = ("secret_id", "secret_key", "token")
_KEY = re.compile(r"[!-~]+")
_MACHINE_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Credential:
    """One key pair; ``token`` and ``expires_at`` come with temporary ones."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


_Read = Callable[[], Credential | None]


class CredentialSource(Protocol):
    """Gives the keys to sign with, and fresh ones when they no longer do."""

    async def current(self) -> Credential:
        """The keys in force."""
        ...

    async def renew(self) -> Credential:
        """Keys fetched anew, whatever is held."""
        ...


def find_credentials(
    profile: str, environ: Mapping[str, str], home: Path, *, clock: Clock = _MACHINE_CLOCK
) -> CredentialSource:
    """The first place that holds keys for the profile; the environment's serve every profile.

    Raises:
        CredentialError: no place holds keys, or the first that does cannot be used.
    """
    tccli = home / ".tccli" / f"{profile}.credential"
    shared = home / ".tencentcloud" / "credentials"
    places: Mapping[str, _Read] = {
        f"the environment ({_ENVIRONMENT[0]}, {_ENVIRONMENT[1]})": partial(_environment, environ),
        str(tccli): partial(_tccli_profile, tccli),
        f"{shared} [{profile}]": partial(_ini_section, shared, profile),
    }
    for place, read in places.items():
        if read() is not None:
            return StaticSource(place, read, clock)
    raise CredentialError(
        f"No Tencent Cloud keys for profile {profile!r}; looked at: {'; '.join(places)}.",
        f"Set {_ENVIRONMENT[0]} and {_ENVIRONMENT[1]}, or run: tccli configure --profile {profile}",
    )


class StaticSource:
    """Keys that stand in one place until somebody writes others there."""

    def __init__(self, place: str, read: _Read, clock: Clock) -> None:
        self._place = place
        self._read = read
        self._clock = clock
        self._credential = self._load()

    async def current(self) -> Credential:
        """The keys last read; read again once they have expired."""
        return await self.renew() if self._expired(self._credential) else self._credential

    async def renew(self) -> Credential:
        """What stands there now."""
        self._credential = await to_thread.run_sync(self._load)
        return self._credential

    def _load(self) -> Credential:
        credential = self._read()
        if credential is None:
            raise CredentialError(f"The keys are gone from {self._place}.", "Put keys there again.")
        if credential.expires_at is not None and self._expired(credential):
            raise CredentialError(
                f"The login in {self._place} expired at {iso(credential.expires_at)}.",
                "Log in again with: tccli auth login (or: tccli sso login)",
            )
        return credential

    def _expired(self, credential: Credential) -> bool:
        return credential.expires_at is not None and credential.expires_at <= self._clock.now()


def _environment(environ: Mapping[str, str]) -> Credential | None:
    return _credential("", _ENVIRONMENT, environ)


def _tccli_profile(path: Path) -> Credential | None:
    text = _text(path)
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise CredentialError(f"{path} is not a JSON object.", "Write it again: tccli configure")
    _refuse_roles(path, fields)
    expires_at = _expiry(path, fields.get("expiresAt"))
    return _credential(f"{path}: ", _TCCLI_FIELDS, fields, expires_at)


def _ini_section(path: Path, section: str) -> Credential | None:
    text = _text(path)
    if text is None:
        return None
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except IniError:
        # the parser's own message quotes the line, and with it the key
        raise CredentialError(
            f"{path} is not a readable INI file.",
            "It needs a section such as [default] with secret_id and secret_key.",
        ) from None
    if not parser.has_section(section):
        return None
    return _credential(f"{path} [{section}]: ", _INI_FIELDS, parser[section])


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialError(
            f"{path} cannot be read: {error.strerror}.", "Mend its permissions, or remove it."
        ) from None
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not UTF-8 text.", "Write the file again.") from None


def _refuse_roles(path: Path, fields: Mapping[str, Any]) -> None:
    by_instance = fields.get("type") == "cvm-role" or fields.get("use-cvm-role") in (True, "true")
    if by_instance or fields.get("role-arn"):
        kind = "an instance's role" if by_instance else "role-arn"
        raise CredentialError(
            f"{path} asks for {kind}, a kind of credentials that is not supported yet.",
            f"Put temporary keys of that role into {', '.join(_ENVIRONMENT)}.",
        )


def _expiry(path: Path, seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialError(
            f"{path}: expiresAt is not a time in seconds.", "Log in again with tccli."
        ) from None


def _credential(
    place: str,
    names: tuple[str, str, str],
    values: Mapping[str, Any],
    expires_at: datetime | None = None,
) -> Credential | None:
    secret_id, secret_key, token = (_key(place + name, values.get(name)) for name in names)
    if secret_id is None and secret_key is None:
        return None
    if secret_id is None or secret_key is None:
        there, missing = (names[1], names[0]) if secret_id is None else (names[0], names[1])
        raise CredentialError(f"{place}{there} is set but {missing} is not.", "Set both, or none.")
    return Credential(secret_id, secret_key, token, expires_at)


def _key(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        padded = isinstance(value, str) and value != value.strip()
        fault = "has blanks around it" if padded else "has characters that no key has"
        raise CredentialError(f"{name} {fault}.", "Copy it again from the CAM console.")
    return value
