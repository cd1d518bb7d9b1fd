"""What the metadata service and STS may answer, and what is made of it."""

import json
import socket
import threading
from typing import Any

import anyio
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assumed
from orchestrator.cloud.credentials.base import AssumedRole, Credential
from orchestrator.cloud.credentials.instance_role import of_instance
from orchestrator.errors import CredentialError
from tests.cloud.scripted import KEYS, Answer, HeldKeys, ScriptedServer, api, http

NEXT_YEAR = 1_800_000_000
SECRET = "s3cr3t-of-nobody"
LENT = {
    "TmpSecretId": "AKIDlent",
    "TmpSecretKey": SECRET,
    "Token": f"{SECRET}-token",
    "ExpiredTime": NEXT_YEAR,
    "Code": "Success",
}
ROLE = AssumedRole("qcs::cam::uin/1:roleName/exporter")
OTHER_KEYS = Credential("AKIDother", "x")


def once(body: str | bytes, **named: Any) -> Answer:
    """One answer on a connection of its own."""
    return Answer(http(body, **named), "close")


def refused(code: str) -> Answer:
    """A refusal by STS."""
    return Answer(api({"Error": {"Code": code, "Message": "No."}, "RequestId": "r-1"}), "close")


class RotatedKeys(HeldKeys):
    """A place into which somebody has written other keys since they were read."""

    async def renew(self) -> Credential:
        """The others."""
        self.credential = OTHER_KEYS
        return self.credential


async def asked_of_sts(server: ScriptedServer, base: HeldKeys) -> Credential:
    """What STS lends."""
    return await assumed(ROLE, base, server.url, ServerClock(SystemClock()))


@pytest.mark.anyio
async def test_the_role_of_an_instance_is_asked_for_by_its_name(server: ScriptedServer) -> None:
    """The name, which may end in a line break, leads to the keys; neither question is signed."""
    server.will(once("exporter\n"), once(json.dumps(LENT)))
    keys = await of_instance(server.url)
    assert (keys.secret_id, keys.token) == ("AKIDlent", f"{SECRET}-token")
    assert keys.expires_at is not None
    assert keys.expires_at.timestamp() == NEXT_YEAR
    root = "/latest/meta-data/cam/security-credentials/"
    assert [request.target for request in server.requests] == [root, f"{root}exporter"]
    assert not any("authorization" in request.headers for request in server.requests)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["", "<html>\n<body>Log in</body></html>", "one\ntwo", "../x", "é"]
)
async def test_what_is_no_name_of_a_role_is_not_asked_for(
    server: ScriptedServer, name: str
) -> None:
    """A page of a hotel's network in place of a role's name ends in a message, not in a fault."""
    server.will(once(name))
    with pytest.raises(CredentialError, match="an answer that is no role's name"):
        await of_instance(server.url)
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
async def test_an_answer_without_whole_keys_is_not_repeated(
    server: ScriptedServer, answer: str
) -> None:
    """Keys that lack a part, or have a part that no header can hold, are none; none is shown."""
    server.will(once("exporter"), once(answer))
    with pytest.raises(CredentialError, match="gives no keys of the role exporter") as caught:
        await of_instance(server.url)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.anyio
async def test_no_proxy_leads_to_the_metadata_service(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever proxy the environment names, it hears nothing of an instance's keys."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("ALL_PROXY", server.url)
    with pytest.raises(CredentialError, match="cannot be reached"):
        await of_instance("http://127.0.0.1:9")
    assert not server.requests


def test_a_name_server_that_is_silent_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message comes, and the event loop ends, while the resolver still waits."""
    answered, waiting = threading.Event(), threading.Event()

    def resolve(*_arguments: Any, **_named: Any) -> Any:
        waiting.set()
        answered.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        with pytest.raises(CredentialError, match="gives no answer within 2 s"):
            anyio.run(of_instance, "http://metadata.example")
        assert waiting.is_set()
        assert not answered.is_set()
    finally:
        answered.set()


@pytest.mark.anyio
@pytest.mark.parametrize("code", ["SecretIdNotFound", "SignatureFailure", "TokenFailure"])
async def test_base_keys_that_were_rotated_are_read_again(
    server: ScriptedServer, code: str
) -> None:
    """When STS refuses the keys that a role is assumed with, others that stand there are tried."""
    server.will(refused(f"AuthFailure.{code}"), Answer(api({"Credentials": LENT, **LENT}), "close"))
    keys = await asked_of_sts(server, RotatedKeys(KEYS))
    assert keys.secret_id == "AKIDlent"
    signed_by = [request.headers["authorization"] for request in server.requests]
    assert f"Credential={KEYS.secret_id}/" in signed_by[0]
    assert f"Credential={OTHER_KEYS.secret_id}/" in signed_by[1]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AuthFailure.SecretIdNotFound", "that the key exists"),
        ("AuthFailure.UnauthorizedOperation", "sts:AssumeRole"),
        ("ResourceNotFound.RoleNotFound", "the role exists"),
        ("UnauthorizedOperation", "sts:AssumeRole"),
        ("InternalError.SystemError", "passes by itself"),
    ],
)
async def test_a_refusal_by_sts_says_what_to_do(
    server: ScriptedServer, code: str, remedy: str
) -> None:
    """The same keys are not tried twice; code, message and RequestId are told, with a remedy."""
    server.will(refused(code))
    with pytest.raises(CredentialError) as caught:
        await asked_of_sts(server, HeldKeys(KEYS))
    assert f"{ROLE.arn} cannot be assumed: {code}: No. (RequestId r-1)." in caught.value.message
    assert remedy in caught.value.remedy
    assert len(server.requests) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(then="reset"), "does not answer"),
        (once("<html>", status="502 Bad Gateway"), r"none of its own \(HTTP 502\)"),
        (Answer(api({"RequestId": "r-1"}), "close"), "gives no keys"),
        (Answer(api({"Credentials": {**LENT, "Token": 7}, **LENT}), "close"), "gives no keys"),
    ],
)
async def test_sts_out_of_order(server: ScriptedServer, answer: Answer, said: str) -> None:
    """What comes in place of an answer is told without a word of it."""
    server.will(answer)
    with pytest.raises(CredentialError, match=said) as caught:
        await asked_of_sts(server, HeldKeys(KEYS))
    assert SECRET not in str(caught.value)
    assert "run again" in caught.value.remedy
