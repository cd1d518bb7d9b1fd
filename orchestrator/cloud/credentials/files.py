"""The places where a user's keys stand: the environment, a tccli profile, the shared file."""

import json
from configparser import ConfigParser
from configparser import Error as IniError
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.cloud.credentials.base import (
    DEFAULT_SESSION_NAME,
    AssumedRole,
    Found,
    make_credential,
)
from orchestrator.errors import CredentialError

_TCCLI_FIELDS = ("secretId", "secretKey", "token")
_INI_FIELDS = ("secret_id", "secret_key", "token")


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
        role = AssumedRole(str(arn), str(fields.get("role-session-name") or DEFAULT_SESSION_NAME))
    if fields.get("type") == "cvm-role" or fields.get("use-cvm-role") in (True, "true"):
        return Found(by_instance=True, role=role)
    expires_at = _expiry(path, fields.get("expiresAt"))
    credential = make_credential(f"{path}: ", _TCCLI_FIELDS, fields, expires_at)
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
    credential = make_credential(f"{path} [{section}]: ", _INI_FIELDS, parser[section])
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
