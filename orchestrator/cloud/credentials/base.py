"""Credentials, the interface of what provides them, and the checks that all providers share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from orchestrator.errors import CredentialError

DEFAULT_SESSION_NAME = "orchestrator"

_KEY = re.compile(r"[!-~]+")
"""Characters of a SecretId, SecretKey or token: all are sent in headers, or sign them."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One API key of the vendor; only temporary ones have ``token`` and ``expires_at``."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


class CredentialSource(Protocol):
    """Provides the credential to sign with."""

    async def current(self) -> Credential:
        """Return a credential that has not expired."""
        ...

    async def renew(self) -> Credential:
        """Fetch the credential again: the server has refused the one in use."""
        ...

    async def keep_fresh(self) -> None:
        """Renew the credential before it expires; runs beside the work until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Role:
    """A CAM role to assume, by its ARN."""

    arn: str
    session_name: str = DEFAULT_SESSION_NAME


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """The credential or role that the environment or a file defines.

    Args:
        credential: the API key that is stored there.
        use_instance_role: use the credential of the CVM instance's role instead.
        role: role to assume with either.
    """

    credential: Credential | None = None
    use_instance_role: bool = False
    role: Role | None = None


def parse_stored_credential(
    place: str,
    names: tuple[str, str, str],
    values: Mapping[str, Any],
    *,
    expires_at: datetime | None = None,
    role: Role | None = None,
) -> StoredCredential | None:
    """Return the credential that is stored under these names, or ``None`` if there is none.

    Args:
        place: prefix of the names in messages.
        names: of the SecretId, the SecretKey and the token.

    Raises:
        CredentialError: half of a pair is missing, or a value has impossible characters.
    """
    secret_id, secret_key, token = (_checked(place + name, values.get(name)) for name in names)
    if secret_id is None and secret_key is None:
        return None
    if secret_id is None or secret_key is None:
        present, missing = (names[1], names[0]) if secret_id is None else (names[0], names[1])
        raise CredentialError(
            f"{place}{present} is set but {missing} is not.", "Set both, or neither."
        )
    return StoredCredential(Credential(secret_id, secret_key, token, expires_at), role=role)


def parse_temporary_credential(fields: Any, expires_at: Any) -> Credential | None:
    """Return the credential in a service's answer, or ``None`` if a part is missing or invalid.

    Args:
        fields: holds ``TmpSecretId``, ``TmpSecretKey`` and ``Token``.
        expires_at: seconds since 1970.
    """
    try:
        key = fields["TmpSecretId"], fields["TmpSecretKey"], fields["Token"]
        if not all(_KEY.fullmatch(part) for part in key):
            return None
        return Credential(*key, datetime.fromtimestamp(int(expires_at), UTC))
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def service_error(service: str, problem: str | Exception, remedy: str) -> CredentialError:
    """Return the error for a service that did not provide a credential.

    Args:
        service: its name and address.
        problem: what it did, as in "answered with HTTP 502"; or why no answer came.
    """
    if isinstance(problem, Exception):
        problem = f"cannot be reached: {str(problem) or type(problem).__name__}"
    return CredentialError(f"{service} {problem}.", remedy)


def _checked(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        is_padded = isinstance(value, str) and value != value.strip()
        problem = "has spaces around it" if is_padded else "has characters that no key has"
        # the value itself is never shown
        raise CredentialError(f"{name} {problem}.", "Copy it again from the CAM console.")
    return value
