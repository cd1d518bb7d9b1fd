"""Credentials, the interface of what provides them, and what several providers share."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from orchestrator.errors import CredentialError

KEY = re.compile(r"[!-~]+")
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
    session_name: str


def parse_temporary_credential(key: Any, answer: Any) -> Credential | None:
    """Return the credential in a service's answer, or ``None`` if a part is missing or invalid.

    Args:
        key: holds ``TmpSecretId``, ``TmpSecretKey`` and ``Token``.
        answer: holds ``ExpiredTime``, in seconds since 1970.
    """
    try:
        parts = key["TmpSecretId"], key["TmpSecretKey"], key["Token"]
        if not all(KEY.fullmatch(part) for part in parts):
            return None
        return Credential(*parts, datetime.fromtimestamp(int(answer["ExpiredTime"]), UTC))
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
