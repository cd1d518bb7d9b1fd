"""The files in which the vendor's own tools store credentials."""

import json
from configparser import ConfigParser
from configparser import Error as IniError
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.cloud.credentials.base import (
    DEFAULT_SESSION_NAME,
    Role,
    StoredCredential,
    parse_stored_credential,
)
from orchestrator.errors import CredentialError

_TCCLI_FIELDS = ("secretId", "secretKey", "token")
_INI_FIELDS = ("secret_id", "secret_key", "token")


def read_tccli_profile(path: Path) -> StoredCredential | None:
    """Return what a profile of tccli holds, ``None`` if the file or the key is missing.

    Raises:
        CredentialError: the file cannot be read, or a value in it is not valid.
    """
    text = _read_text(path)
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        # the message does not quote the file: it holds secrets
        raise CredentialError(f"{path} is not a JSON object.", "Write it again: tccli configure")
    role = None
    if arn := fields.get("role-arn"):
        role = Role(str(arn), str(fields.get("role-session-name") or DEFAULT_SESSION_NAME))
    if fields.get("type") == "cvm-role" or fields.get("use-cvm-role") in (True, "true"):
        return StoredCredential(use_instance_role=True, role=role)
    expires_at = _parse_expiry(path, fields.get("expiresAt"))
    return parse_stored_credential(
        f"{path}: ", _TCCLI_FIELDS, fields, expires_at=expires_at, role=role
    )


def read_shared_file(path: Path, section: str) -> StoredCredential | None:
    """Return the credential of one section of the SDKs' file, ``None`` if it is missing.

    Raises:
        CredentialError: the file cannot be read, or a value in it is not valid.
    """
    text = _read_text(path)
    if text is None:
        return None
    parser = ConfigParser(interpolation=None)  # a key may contain a percent sign
    try:
        parser.read_string(text)
    except IniError:
        # the parser's own message quotes the line, which may hold a secret
        raise CredentialError(
            f"{path} is not a readable INI file.",
            "It needs a section such as [default] with secret_id and secret_key.",
        ) from None
    if not parser.has_section(section):
        return None
    return parse_stored_credential(f"{path} [{section}]: ", _INI_FIELDS, parser[section])


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialError(
            f"{path} cannot be read: {error.strerror}.", "Correct its permissions, or remove it."
        ) from None
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not UTF-8 text.", "Write the file again.") from None


def _parse_expiry(path: Path, seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialError(
            f"{path}: expiresAt is not a time in seconds.", "Log in again with tccli."
        ) from None
