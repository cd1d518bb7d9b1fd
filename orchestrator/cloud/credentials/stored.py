"""Credentials that are stored in the environment or in the files of the vendor's own tools."""

import json
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.cloud.credentials.base import KEY, Credential, Role
from orchestrator.errors import CredentialError

VARIABLES = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN")

_TCCLI_FIELDS = ("secretId", "secretKey", "token")
_INI_FIELDS = ("secret_id", "secret_key", "token")


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """The credential and the role that the environment or a file defines.

    Args:
        credential: ``None`` if that of the CVM instance's role is to be used.
        role: role to assume with it.
    """

    credential: Credential | None
    role: Role | None = None


def role_in_environment(environ: Mapping[str, str]) -> Role | None:
    """Return the role to assume, wherever the credential comes from."""
    return _role(
        environ.get("TENCENTCLOUD_ROLE_ARN"), environ.get("TENCENTCLOUD_ROLE_SESSION_NAME")
    )


def read_environment(environ: Mapping[str, str]) -> StoredCredential | None:
    """Return the credential in the environment; it is used for every profile.

    Raises:
        CredentialError: half of a pair is missing, or a value has impossible characters.
    """
    return _parse("", VARIABLES, environ)


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
        raise CredentialError(
            f"{path} is not a JSON object.",
            f"Write a new one with: tccli configure --profile {path.stem}",
        )
    role = _role(fields.get("role-arn"), fields.get("role-session-name"))
    if fields.get("type") == "cvm-role" or fields.get("use-cvm-role") in (True, "true"):
        return StoredCredential(None, role)
    expires_at = _parse_expiry(path, fields.get("expiresAt"))
    return _parse(f"{path}: ", _TCCLI_FIELDS, fields, expires_at, role)


def read_shared_file(path: Path, section: str) -> StoredCredential | None:
    """Return the credential of one section of the SDKs' file, ``None`` if it is missing.

    Raises:
        CredentialError: the file cannot be read, or a value in it is not valid.
    """
    parser = ConfigParser(interpolation=None)  # a key may contain a percent sign
    try:
        parser.read_string(_read_text(path) or "")
    except IniError:
        # the parser's own message quotes the line, which may hold a secret
        raise CredentialError(
            f"{path} is not a readable INI file.",
            "It needs a section such as [default] with secret_id and secret_key.",
        ) from None
    if not parser.has_section(section):
        return None
    return _parse(f"{path} [{section}]: ", _INI_FIELDS, parser[section])


def _role(arn: object, session_name: object) -> Role | None:
    return Role(str(arn), str(session_name or "orchestrator")) if arn else None


def _parse(
    place: str,
    names: tuple[str, str, str],
    values: Mapping[str, Any],
    expires_at: datetime | None = None,
    role: Role | None = None,
) -> StoredCredential | None:
    """Return the credential under these names: SecretId, SecretKey, token; ``None`` without one.

    Args:
        place: prefix of the names in messages.
    """
    secret_id, secret_key, token = (_checked(place + name, values.get(name)) for name in names)
    if secret_id is not None and secret_key is not None:
        return StoredCredential(Credential(secret_id, secret_key, token, expires_at), role)
    if secret_id is None and secret_key is None:
        return None
    present, missing = (names[1], names[0]) if secret_id is None else (names[0], names[1])
    raise CredentialError(f"{place}{present} is set but {missing} is not.", "Set both, or neither.")


def _checked(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not KEY.fullmatch(value):
        is_padded = isinstance(value, str) and value != value.strip()
        problem = "has spaces around it" if is_padded else "has characters that no key has"
        # the value itself is never shown
        raise CredentialError(
            f"{name} {problem}.",
            "Copy it again: an API key from the CAM console, a token from the login that issued "
            "it.",
        )
    return value


def _parse_expiry(path: Path, seconds: object) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialError(
            f"{path}: expiresAt is not a time in seconds.", "Log in again with tccli."
        ) from None


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
