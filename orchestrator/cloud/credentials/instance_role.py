"""Temporary credentials of a CVM instance's role, from the instance metadata service."""

import json
import re
import socket
from typing import Any

import anyio
import httpx
from anyio import to_thread

from orchestrator.cloud.credentials.base import (
    Credential,
    parse_temporary_credential,
    service_error,
)
from orchestrator.cloud.http_client import HttpClient, open_http_client
from orchestrator.errors import CredentialError

_TIMEOUT = 2.0
"""Seconds for all requests. On an instance the service answers immediately; elsewhere it never
does."""

_PATH = "/latest/meta-data/cam/security-credentials/"
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,128}")
_REMEDY = "The service answers only on CVM instances: elsewhere set credentials in the environment."


async def fetch_instance_credential(endpoint: str) -> Credential:
    """Fetch the credential of the instance's role from the metadata service.

    The first request asks for the name of the role, the second one for its credential.

    Raises:
        CredentialError: the service cannot be reached (this machine is not a CVM instance), or
            the instance has no role.
    """
    service = f"The metadata service at {endpoint}"
    try:
        with anyio.fail_after(_TIMEOUT):
            # in a thread that can be abandoned: the event loop waits at its end for its own
            # look-ups, which take long without a name server
            host = httpx.URL(endpoint).host
            await to_thread.run_sync(socket.getaddrinfo, host, None, abandon_on_cancel=True)
            # without a proxy: the service answers this machine only, and its answer is secret
            async with open_http_client("orchestrator", uses_proxies=False) as http:
                role = (await _get(http, endpoint, "")).strip()
                # the name becomes part of a URL: an error page of a proxy must not
                if not _ROLE_NAME.fullmatch(role):
                    raise service_error(service, "did not return the name of a role", _REMEDY)
                answer = await _get(http, endpoint, role)
    except TimeoutError as error:
        raise service_error(service, f"did not answer within {_TIMEOUT:g} s", _REMEDY) from error
    except (OSError, httpx.HTTPError) as error:
        raise service_error(service, error, _REMEDY) from error
    try:
        fields: Any = json.loads(answer)
    except (ValueError, RecursionError):
        fields = None
    credential = parse_temporary_credential(fields, fields)
    if credential is None or fields.get("Code") != "Success":
        raise service_error(service, f"returned no credential for the role {role}", _REMEDY)
    return credential


async def _get(http: HttpClient, endpoint: str, role: str) -> str:
    response = await http.send("GET", f"{endpoint}{_PATH}{role}", headers={}, seconds=_TIMEOUT)
    service = f"The metadata service at {endpoint}"
    if response.status_code == 404:
        raise CredentialError(
            f"{service} knows no role of this instance.",
            "Bind a role to the instance, or set credentials in the environment.",
        )
    if response.status_code != 200:
        raise service_error(service, f"answered with HTTP {response.status_code}", _REMEDY)
    return response.text
