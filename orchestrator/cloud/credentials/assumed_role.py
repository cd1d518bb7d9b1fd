"""Temporary credentials of a role that is assumed through STS."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from anyio import to_thread

from orchestrator.cloud.api3 import SIGNATURE_EXPIRED
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import (
    Credential,
    CredentialSource,
    Role,
    parse_temporary_credential,
)
from orchestrator.cloud.credentials.stored import WebIdentity, read_web_identity_token
from orchestrator.cloud.error_codes import code_for
from orchestrator.cloud.sts import call_sts, sts_error
from orchestrator.errors import CredentialError
from orchestrator.model import Reaction, Reply, Scope

_TIMEOUT = 10.0

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
    body = _parameters(role)
    call = partial(call_sts, "AssumeRole", body, endpoint=endpoint, clock=clock, seconds=_TIMEOUT)
    credential = await base.current()
    reply, result = await call(credential)
    if reply.error_code == SIGNATURE_EXPIRED:
        # the clock has learned from this answer
        reply, result = await call(credential)
    elif reply.error_code in _REFUSED_KEY and (renewed := await base.renew()) != credential:
        reply, result = await call(renewed)
    remedy = (
        "Check in CAM that the role exists and trusts this account, and that this key may call "
        "sts:AssumeRole."
    )
    return _assumed(role, reply, result, endpoint, remedy)


async def assume_role_with_web_identity(
    identity: WebIdentity, endpoint: str, clock: ServerClock
) -> Credential:
    """Return temporary credentials of a pod's role.

    They come from a call of AssumeRoleWithWebIdentity.

    Raises:
        CredentialError: the pod's token cannot be read; or STS refuses it, cannot be reached or
            returns no credential.
    """
    body = {
        "ProviderId": identity.provider_id,
        "WebIdentityToken": await to_thread.run_sync(read_web_identity_token, identity),
        **_parameters(identity.role),
    }
    call = partial(
        call_sts,
        "AssumeRoleWithWebIdentity",
        body,
        None,
        endpoint=endpoint,
        clock=clock,
        seconds=_TIMEOUT,
        region=identity.region,
    )
    reply, result = await call()
    if reply.error_code == SIGNATURE_EXPIRED:
        reply, result = await call()
    remedy = (
        "Check in CAM that the role exists and trusts the cluster's identity provider, and that "
        "the pod's service account names this role."
    )
    return _assumed(identity.role, reply, result, endpoint, remedy)


def _parameters(role: Role) -> dict[str, object]:
    body: dict[str, object] = {
        "RoleArn": role.arn,
        "RoleSessionName": role.session_name,
        "DurationSeconds": role.seconds,
    }
    return body if role.external_id is None else body | {"ExternalId": role.external_id}


def _assumed(
    role: Role, reply: Reply, result: Mapping[str, Any], endpoint: str, remedy: str
) -> Credential:
    """Return the credential in an answer of STS.

    Args:
        remedy: what to check if STS refuses the role.
    """
    if reply.error_code is not None:
        raise CredentialError(
            f"The role {role.arn} cannot be assumed: {reply.error_code}: {reply.error_message} "
            f"(RequestId {reply.request_id}).",
            _remedy(reply.error_code) or remedy,
        )
    assumed = parse_temporary_credential(result.get("Credentials"), result)
    if assumed is None:
        raise sts_error(endpoint, "returned no credential")
    return assumed


def _remedy(code: str) -> str | None:
    row = code_for(code)
    if row.reaction in {Reaction.RECONCILE, Reaction.SLOW}:
        return "This is temporary: run again."
    if row.scope in {Scope.CREDENTIAL, Scope.CLOCK} and not code.endswith("UnauthorizedOperation"):
        return row.remedy
    # the remedies of the table speak of exports
    return None
