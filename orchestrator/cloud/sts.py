"""STS: assume roles, and look up the account of a credential (version 2018-08-13)."""

from collections.abc import Mapping
from typing import Any

import httpx

from orchestrator.cloud.api3 import Api3Client
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, service_error
from orchestrator.cloud.http_client import ActionRequiredError, open_http_client
from orchestrator.errors import CredentialError
from orchestrator.model import Reply

_VERSION = "2018-08-13"
_REGION = "ap-guangzhou"
"""STS serves every region, but the request must name one (source: the vendor's own client)."""


async def call_sts(
    action: str,
    body: Mapping[str, object],
    credential: Credential | None,
    *,
    endpoint: str,
    clock: ServerClock,
    seconds: float,
    region: str = _REGION,
) -> tuple[Reply, Mapping[str, Any]]:
    """Send one request to STS; return its answer, and the fields of a success.

    The answer may be a refusal.

    Args:
        credential: ``None`` for an action that needs no signature.
        clock: dates the signature, and learns the server's time from the answer.
        seconds: time limit of the whole request.

    Raises:
        CredentialError: STS cannot be reached, or something else answered.
        UsageError: the environment names a proxy or certificates that cannot be used.
    """
    url = httpx.URL(f"{endpoint}/")
    async with open_http_client("orchestrator", endpoint) as http:
        sts = Api3Client(http, "sts", _VERSION, clock, seconds)
        try:
            reply, result = await sts.call(url, action, region, body, credential, clock.now())
        except httpx.HTTPError as error:
            raise sts_error(endpoint, error) from error
    if reply.excerpt is not None:
        status = reply.http_status
        raise sts_error(endpoint, f"did not answer; something else did, with HTTP {status}")
    return reply, result


async def caller_account(
    credential: Credential, *, endpoint: str, clock: ServerClock, seconds: float
) -> str:
    """Return the number (UIN) of the main account that a credential belongs to.

    Raises:
        CredentialError: STS gives no answer, or refuses the credential.
    """
    reply, result = await call_sts(
        "GetCallerIdentity", {}, credential, endpoint=endpoint, clock=clock, seconds=seconds
    )
    account = result.get("AccountId")
    if not isinstance(account, str | int) or isinstance(account, bool) or not str(account):
        code = reply.error_code or "no AccountId"
        raise sts_error(endpoint, f"did not return the account of the credential ({code})")
    return str(account)


def sts_error(endpoint: str, problem: str | Exception) -> CredentialError:
    """Return the error for an STS that gave no usable answer."""
    remedy = "Check the network and the setting site (intl or mainland), then run again."
    if isinstance(problem, ActionRequiredError):
        remedy = problem.remedy
    return service_error(f"STS at {endpoint}", problem, remedy)
