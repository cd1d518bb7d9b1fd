"""The metadata service: what its answers mean, and what happens if it does not answer."""

import json
import socket
import threading
from typing import Any

import anyio
import pytest

from orchestrator.cloud import proxies
from orchestrator.cloud.credentials.instance_role import fetch_instance_credential
from orchestrator.errors import CredentialError
from orchestrator.simulator import Fault, Settings, Simulator, SimulatorOptions
from tests.cloud.scripted_server import Answer, ScriptedServer, http

from .stored import NOWHERE, SECRET

NEXT_YEAR = 1_800_000_000
LENT = {
    "TmpSecretId": "AKIDlent",
    "TmpSecretKey": SECRET,
    "Token": f"{SECRET}-token",
    "ExpiredTime": NEXT_YEAR,
    "Code": "Success",
}


def once(body: str) -> Answer:
    """Return one answer on a connection of its own."""
    return Answer(http(body), "close")


@pytest.mark.anyio
async def test_role_is_requested_by_its_name(server: ScriptedServer) -> None:
    """The role's name is requested first, then its credential, both unsigned.

    The name may end in a line break.
    """
    server.respond(once("exporter\n"), once(json.dumps(LENT)))
    credential = await fetch_instance_credential(server.url)
    assert (credential.secret_id, credential.token) == ("AKIDlent", f"{SECRET}-token")
    assert credential.expires_at is not None
    assert credential.expires_at.timestamp() == NEXT_YEAR
    root = "/latest/meta-data/cam/security-credentials/"
    assert [request.target for request in server.requests] == [root, f"{root}exporter"]
    assert not any("authorization" in request.headers for request in server.requests)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["", "<html>\n<body>Log in</body></html>", "one\ntwo", "../x", "é"]
)
async def test_invalid_role_name_is_not_requested(server: ScriptedServer, name: str) -> None:
    """A login page instead of a role name is an error and is not put into a URL."""
    server.respond(once(name))
    with pytest.raises(CredentialError, match="did not return the name of a role"):
        await fetch_instance_credential(server.url)
    assert len(server.requests) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        "",
        SECRET,
        f'["{SECRET}"]',
        "[" * 9999,
        json.dumps({**LENT, "Code": "Failed"}),
        json.dumps({**LENT, "TmpSecretId": None}),
        json.dumps({**LENT, "Token": ""}),
        json.dumps({**LENT, "Token": f"{SECRET}\nX-Header: 1"}),
        json.dumps({**LENT, "ExpiredTime": "soon"}),
        json.dumps({**LENT, "ExpiredTime": 1e400}),
        json.dumps({name: LENT[name] for name in ("Code", "TmpSecretId", "TmpSecretKey")}),
    ],
)
async def test_incomplete_credential_is_an_error(server: ScriptedServer, answer: str) -> None:
    """A missing part, or one that no header can hold, is an error without secrets."""
    server.respond(once("exporter"), once(answer))
    with pytest.raises(CredentialError, match="no credential for the role exporter") as caught:
        await fetch_instance_credential(server.url)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.anyio
async def test_proxy_is_not_used(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment receives nothing about an instance's credential."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("ALL_PROXY", server.url)
    with pytest.raises(CredentialError, match="cannot be reached"):
        await fetch_instance_credential(NOWHERE)
    assert not server.requests


@pytest.mark.anyio
async def test_every_address_of_the_service_is_reached_directly(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the proxy, also where the address is not loopback, which never has one."""
    monkeypatch.setattr(proxies, "is_loopback", lambda _host: False)
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    server.respond(once("exporter"), once(json.dumps(LENT)))
    assert (await fetch_instance_credential(server.url)).secret_id == "AKIDlent"


def test_silent_name_server_does_not_block_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised and the event loop ends before the name look-up returns."""
    answered, waiting = threading.Event(), threading.Event()

    def resolve(*_arguments: Any, **_named: Any) -> Any:
        waiting.set()
        answered.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        with pytest.raises(CredentialError, match="did not answer within 2 s"):
            anyio.run(fetch_instance_credential, "http://metadata.example")
        assert waiting.is_set()
        assert not answered.is_set()
    finally:
        answered.set()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("reset", "cannot be reached"),
        ("hang", "did not answer within 2 s"),
        ("gateway", "answered with HTTP 502"),
        ("html", "did not return the name of a role"),
    ],
)
async def test_broken_service_is_an_error_within_seconds(kind: Any, message: str) -> None:
    """Whatever the service does, it becomes a message, and soon."""
    settings = Settings(instance_role="exporter")
    async with Simulator(SimulatorOptions(settings=settings)) as simulator:
        simulator.set_faults(Fault(kind, action="metadata"))
        with anyio.fail_after(60), pytest.raises(CredentialError, match=message):
            await fetch_instance_credential(simulator.url)
