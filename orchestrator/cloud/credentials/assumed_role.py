"""Temporary credentials of a role that is assumed through STS."""

from functools import partial

from orchestrator.cloud.api3 import SIGNATURE_EXPIRED
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import (
    Credential,
    CredentialSource,
    Role,
    parse_temporary_credential,
)
from orchestrator.cloud.error_codes import code_for
from orchestrator.cloud.sts import call_sts, sts_error
from orchestrator.errors import CredentialError
from orchestrator.model import Reaction, Scope

_TIMEOUT = 10.0
_LIFETIME = 7200
"""Seconds for which the credential is requested; the vendor allows 12 hours at most."""

_REFUSED_KEY = frozenset(
    {
        "AuthFailure.SecretIdNotFound",
        "AuthFailure.SignatureFailure",
        "AuthFailure.TokenFailure",
    }
)
"""Codes that refuse the caller's own key; it may have been replaced since it was read."""


async def assume_role(
    role: Role, base: CredentialSource, endpoint: str, clock: ServerClock
) -> Credential:
    """Return temporary credentials of a role, from a call of AssumeRole.

    Args:
        base: source of the credential that signs the call.

    Raises:
        CredentialError: STS refuses, cannot be reached or returns no credential; or ``base`` has
            none.
    """
    body = {
        "RoleArn": role.arn,
        "RoleSessionName": role.session_name,
        "DurationSeconds": _LIFETIME,
    }
    call = partial(call_sts, "AssumeRole", body, endpoint=endpoint, clock=clock, seconds=_TIMEOUT)
    credential = await base.current()
    reply, result = await call(credential)
    if reply.error_code == SIGNATURE_EXPIRED:
        # the clock has learned from this answer
        reply, result = await call(credential)
    elif reply.error_code in _REFUSED_KEY and (renewed := await base.renew()) != credential:
        reply, result = await call(renewed)
    if reply.error_code is not None:
        raise CredentialError(
            f"The role {role.arn} cannot be assumed: {reply.error_code}: {reply.error_message} "
            f"(RequestId {reply.request_id}).",
            _remedy(reply.error_code),
        )
    assumed = parse_temporary_credential(result.get("Credentials"), result)
    if assumed is None:
        raise sts_error(endpoint, "returned no credential")
    return assumed


def _remedy(code: str) -> str:
    row = code_for(code)
    if row.reaction in {Reaction.RECONCILE, Reaction.SLOW}:
        return "This is temporary: run again."
    if row.scope in {Scope.CREDENTIAL, Scope.CLOCK} and not code.endswith("UnauthorizedOperation"):
        return row.remedy
    # the remedies of the table speak of exports
    return (
        "Check in CAM that the role exists and trusts this account, and that this key may call "
        "sts:AssumeRole."
    )
