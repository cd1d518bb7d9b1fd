"""STS: one call is one request, and its answer is not judged (version 2018-08-13)."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import open_http_client
from orchestrator.cloud.tc3_signing import Tc3Auth
from orchestrator.errors import CredentialError

_AGENT = "orchestrator"
_VERSION = "2018-08-13"
_REGION = "ap-guangzhou"
"""It serves every region, yet wants one named (source: the vendor's own client)."""


async def call_sts(
    action: str,
    parameters: Mapping[str, object],
    credential: Credential,
    *,
    endpoint: str,
    clock: ServerClock,
    seconds: float,
) -> Mapping[str, Any]:
    """Send one request and return the fields of its ``Response``, which may hold an ``Error``.

    Args:
        seconds: time limit of the whole request.

    Raises:
        CredentialError: no answer of STS came.
        UsageError: the environment names a proxy or certificates that cannot be used.
    """
    async with open_http_client(_AGENT) as http:
        try:
            response = await http.send(
                "POST",
                f"{endpoint}/",
                headers={
                    "Content-Type": "application/json",
                    "X-TC-Action": action,
                    "X-TC-Version": _VERSION,
                    "X-TC-Region": _REGION,
                    "X-TC-Language": "en-US",
                },
                content=json.dumps(parameters).encode(),
                auth=Tc3Auth(credential, "sts", clock.now()),
                seconds=seconds,
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise unavailable(f"STS at {endpoint} does not answer: {reason}.") from error
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    answer = body.get("Response") if isinstance(body, dict) else None
    if not isinstance(answer, dict):
        status = response.status_code
        raise unavailable(
            f"STS at {endpoint} gives an answer that is none of its own (HTTP {status})."
        )
    clock.learn(response.headers.get("Date"), clock.local.now())
    return answer


def unavailable(message: str) -> CredentialError:
    """Return the error for an STS that gives no usable answer."""
    return CredentialError(message, "See to the network and the site of the account; run again.")


async def caller_account(
    credential: Credential, *, endpoint: str, clock: ServerClock, seconds: float
) -> str:
    """Return the number (UIN) of the main account that these keys belong to.

    Raises:
        CredentialError: STS does not tell it.
    """
    answer = await call_sts(
        "GetCallerIdentity", {}, credential, endpoint=endpoint, clock=clock, seconds=seconds
    )
    account = answer.get("AccountId")
    if not isinstance(account, str | int) or isinstance(account, bool) or not str(account):
        error = answer.get("Error")
        code = error.get("Code") if isinstance(error, dict) else None
        raise unavailable(f"STS does not tell whose keys these are ({code or 'no AccountId'}).")
    return str(account)
