"""Keys that a role lends for a while: the instance's own, or one assumed through STS."""

from collections.abc import Mapping
from typing import Any

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import (
    AssumedRole,
    Credential,
    CredentialSource,
    temporary_credential,
)
from orchestrator.cloud.error_codes import code_for
from orchestrator.cloud.sts import call_sts, unavailable
from orchestrator.errors import CredentialError
from orchestrator.model import Reaction, Scope

_STS_SECONDS = 10.0
_ASKED_FOR = 7200
"""Seconds for which keys of an assumed role are asked for; more than 12 hours are not lent."""

_REFUSED_KEYS = frozenset(
    {
        "AuthFailure.SecretIdNotFound",
        "AuthFailure.SignatureFailure",
        "AuthFailure.TokenFailure",
    }
)
"""Refusals of the keys that a role is assumed with: others may stand in their place by now."""


async def assumed(
    role: AssumedRole, base: CredentialSource, endpoint: str, clock: ServerClock
) -> Credential:
    """The keys of a role that STS lends to the holder of other keys.

    Raises:
        CredentialError: STS refuses or cannot be reached.
    """
    credential = await base.current()
    answer = await _assume(role, credential, endpoint, clock)
    if _code(answer) == "AuthFailure.SignatureExpire":
        # the answer has told what time it is there
        answer = await _assume(role, credential, endpoint, clock)
    elif _code(answer) in _REFUSED_KEYS and (renewed := await base.renew()) != credential:
        answer = await _assume(role, renewed, endpoint, clock)
    if (code := _code(answer)) is not None:
        raise CredentialError(
            f"The role {role.arn} cannot be assumed: {code}: {answer['Error'].get('Message')} "
            f"(RequestId {answer.get('RequestId')}).",
            _remedy(code),
        )
    keys = temporary_credential(answer.get("Credentials"), answer.get("ExpiredTime"))
    if keys is None:
        raise unavailable(f"STS at {endpoint} gives no keys in its answer.")
    return keys


async def _assume(
    role: AssumedRole, credential: Credential, endpoint: str, clock: ServerClock
) -> Mapping[str, Any]:
    parameters = {
        "RoleArn": role.arn,
        "RoleSessionName": role.session_name,
        "DurationSeconds": _ASKED_FOR,
    }
    return await call_sts(
        "AssumeRole",
        parameters,
        credential,
        endpoint=endpoint,
        clock=clock,
        seconds=_STS_SECONDS,
    )


def _code(answer: Mapping[str, Any]) -> str | None:
    error = answer.get("Error")
    return str(error.get("Code")) if isinstance(error, dict) else None


def _remedy(code: str) -> str:
    row = code_for(code)
    if row.reaction in {Reaction.RECONCILE, Reaction.RETRY, Reaction.SLOW}:
        return "This passes by itself: run again."
    if row.scope in {Scope.CREDENTIAL, Scope.CLOCK} and not code.endswith("UnauthorizedOperation"):
        return row.remedy
    return (
        "See in CAM that the role exists and trusts this account, and that this key may call "
        "sts:AssumeRole."
    )
