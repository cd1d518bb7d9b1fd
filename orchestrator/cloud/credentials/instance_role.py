"""Credentials of a CVM instance's role, read from the instance metadata service."""

import json
import re
import socket
from collections.abc import Mapping
from typing import Any

import anyio
import httpx
from anyio import to_thread

from orchestrator.cloud.credentials.base import Credential, temporary_credential
from orchestrator.cloud.http_client import open_http_client
from orchestrator.errors import CredentialError

_AGENT = "orchestrator"


# for both questions; on the instance itself it answers at once, and elsewhere never
_METADATA_SECONDS = 2.0


_INSTANCE_ROLE = "/latest/meta-data/cam/security-credentials/"


_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,128}")


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
    keys = temporary_credential(fields, fields.get("ExpiredTime"))
    if fields.get("Code") != "Success" or keys is None:
        raise _no_instance(endpoint, f"gives no keys of the role {role}")
    return keys


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


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _no_instance(endpoint: str, what: str) -> CredentialError:
    return CredentialError(
        f"The metadata service at {endpoint} {what}.",
        "It answers on CVM instances only: elsewhere put keys into the environment.",
    )
