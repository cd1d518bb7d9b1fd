"""Keys that a role lends for a while: the instance's own, or one assumed through STS."""

import json
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
from anyio import to_thread

from orchestrator.cloud.credentials.base import KEY, Credential, CredentialSource
from orchestrator.cloud.credentials.files import AssumedRole
from orchestrator.cloud.error_codes import code_for
from orchestrator.cloud.http_client import open_http_client
from orchestrator.cloud.signing import ServerClock
from orchestrator.cloud.sts import call_sts, unavailable
from orchestrator.errors import CredentialError
from orchestrator.model import Reaction, Scope

_AGENT = "orchestrator"
_STS_SECONDS = 10.0
# for both questions; on the instance itself it answers at once, and elsewhere never
_METADATA_SECONDS = 2.0
_INSTANCE_ROLE = "/latest/meta-data/cam/security-credentials/"
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,128}")
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


async def of_instance(endpoint: str) -> Credential:
    """The keys of the instance's role, as the metadata service tells them.

    Raises:
        CredentialError: it cannot be reached, as on any machine that is no CVM instance, or the
            instance has no role.
    """
    try:
        with anyio.fail_after(_METADATA_SECONDS):
            await _resolved(endpoint)
            role = (await _told(endpoint, "")).strip()
            if not _ROLE_NAME.fullmatch(role):
                raise _no_instance(endpoint, "gives an answer that is no role's name")
            fields = _fields(await _told(endpoint, role))
    except TimeoutError as error:
        raise _no_instance(endpoint, f"gives no answer within {_METADATA_SECONDS:g} s") from error
    except (OSError, httpx.HTTPError) as error:
        raise _no_instance(endpoint, f"cannot be reached: {_said(error)}") from error
    keys = _lent(fields, fields.get("ExpiredTime"))
    if fields.get("Code") != "Success" or keys is None:
        raise _no_instance(endpoint, f"gives no keys of the role {role}")
    return keys


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
    keys = _lent(answer.get("Credentials"), answer.get("ExpiredTime"))
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


async def _resolved(endpoint: str) -> None:
    """Waits until the name is known: where no name server answers, the loop could not end."""
    host = httpx.URL(endpoint).host
    await to_thread.run_sync(socket.getaddrinfo, host, None, abandon_on_cancel=True)


async def _told(endpoint: str, role: str) -> str:
    # the service is this machine's own: no proxy leads to it
    async with open_http_client(_AGENT) as http:
        response = await http.send(
            "GET",
            f"{endpoint}{_INSTANCE_ROLE}{role}",
            headers={},
            auth=httpx.Auth(),
            seconds=_METADATA_SECONDS,
            bypass_proxy=True,
        )
    if response.status_code == 404:
        raise CredentialError(
            f"The metadata service at {endpoint} knows of no role of this instance.",
            "Bind a role to the instance, or put keys into the environment.",
        )
    if response.status_code != 200:
        raise _no_instance(endpoint, f"answers with HTTP {response.status_code}")
    return response.text


def _fields(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else {}


def _lent(fields: Any, until: Any) -> Credential | None:
    """The keys of an answer; ``None`` where it has none, and then nothing of it is repeated."""
    try:
        secret_id, secret_key, token = (
            fields[name] for name in ("TmpSecretId", "TmpSecretKey", "Token")
        )
        if not all(KEY.fullmatch(part) for part in (secret_id, secret_key, token)):
            return None
        return Credential(secret_id, secret_key, token, datetime.fromtimestamp(int(until), UTC))
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _no_instance(endpoint: str, what: str) -> CredentialError:
    return CredentialError(
        f"The metadata service at {endpoint} {what}.",
        "It answers on CVM instances only: elsewhere put keys into the environment.",
    )
