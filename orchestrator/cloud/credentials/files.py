"""The places where a user's keys stand: the environment, a tccli profile, the shared file."""

import json
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.cloud.credentials.base import KEY, Credential
from orchestrator.errors import CredentialError

ENVIRONMENT = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN")
_TCCLI_FIELDS = ("secretId", "secretKey", "token")
_INI_FIELDS = ("secret_id", "secret_key", "token")
_SESSION_NAME = "orchestrator"


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """A role that is to be assumed, by the vendor's description of it."""

    arn: str
    session_name: str = _SESSION_NAME


@dataclass(frozen=True, slots=True)
class Found:
    """What one place holds.

    Args:
        credential: the keys that stand there.
        by_instance: the keys are those of the instance's role.
        role: assumed with the keys.
    """

    credential: Credential | None = None
    by_instance: bool = False
    role: AssumedRole | None = None


def in_environment(environ: Mapping[str, str]) -> Found | None:
    """The keys of the environment; they serve every profile."""
    credential = _credential("", ENVIRONMENT, environ)
    return None if credential is None else Found(credential)


def role_in_environment(environ: Mapping[str, str]) -> AssumedRole | None:
    """The role that the environment asks for, wherever the keys stand."""
    arn = environ.get("TENCENTCLOUD_ROLE_ARN")
    name = environ.get("TENCENTCLOUD_ROLE_SESSION_NAME") or _SESSION_NAME
    return AssumedRole(arn, name) if arn else None


def in_tccli_profile(path: Path) -> Found | None:
    """What a profile of tccli holds: keys, and perhaps a role to assume with them."""
    text = _text(path)
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise CredentialError(f"{path} is not a JSON object.", "Write it again: tccli configure")
    role = None
    if arn := fields.get("role-arn"):
        role = AssumedRole(str(arn), str(fields.get("role-session-name") or _SESSION_NAME))
    if fields.get("type") == "cvm-role" or fields.get("use-cvm-role") in (True, "true"):
        return Found(by_instance=True, role=role)
    expires_at = _expiry(path, fields.get("expiresAt"))
    credential = _credential(f"{path}: ", _TCCLI_FIELDS, fields, expires_at)
    return None if credential is None else Found(credential, role=role)


def in_shared_file(path: Path, section: str) -> Found | None:
    """The keys of one section of the vendor's shared file."""
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
    credential = _credential(f"{path} [{section}]: ", _INI_FIELDS, parser[section])
    return None if credential is None else Found(credential)


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
    if not isinstance(value, str) or not KEY.fullmatch(value):
        padded = isinstance(value, str) and value != value.strip()
        fault = "has blanks around it" if padded else "has characters that no key has"
        raise CredentialError(f"{name} {fault}.", "Copy it again from the CAM console.")
    return value
