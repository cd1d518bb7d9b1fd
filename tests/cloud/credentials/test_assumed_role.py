"""Roles that are assumed through STS: what its answers mean, and what a refusal says."""

import json
from collections.abc import AsyncIterator

import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.assumed_role import assume_role
from orchestrator.cloud.credentials.base import Credential, Role
from orchestrator.errors import CredentialError
from orchestrator.simulator import DEFAULT_KEY, Fault, Refusal, Simulator, SimulatorOptions
from tests.cloud.scripted_server import (
    CREDENTIAL,
    Answer,
    FixedCredentials,
    ScriptedServer,
    api,
    http,
)

from .stored import SECRET

pytestmark = pytest.mark.anyio

ROLE = Role("qcs::cam::uin/100000000001:roleName/exporter", "orchestrator")
OTHER = Credential("AKIDother", "x")
OWN = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)
LENT = {"TmpSecretId": "AKIDlent", "TmpSecretKey": SECRET, "Token": f"{SECRET}-token"}
ASSUMED = {"Credentials": LENT, "ExpiredTime": 1_800_000_000}


class RotatedCredentials(FixedCredentials):
    """A source whose stored credential was replaced after it had been read."""

    async def renew(self) -> Credential:
        """Return the new one."""
        self.credential = OTHER
        return self.credential


@pytest.fixture
async def simulator(anyio_backend: str) -> AsyncIterator[Simulator]:
    """Run a simulator with STS."""
    async with Simulator(SimulatorOptions()) as running:
        yield running


def refused(code: str) -> Answer:
    """Return a refusal by STS."""
    return Answer(api({"Error": {"Code": code, "Message": "No."}, "RequestId": "r-1"}), "close")


async def assume(url: str, base: FixedCredentials | None = None, role: Role = ROLE) -> Credential:
    return await assume_role(role, base or FixedCredentials(), url, ServerClock(SystemClock()))


async def test_request_names_all_that_the_role_asks_for(server: ScriptedServer) -> None:
    """Session name, external id and lifetime are those of the role."""
    server.respond(Answer(api(ASSUMED), "close"))
    await assume(server.url, role=Role(ROLE.arn, "night", "agreed-1", 3600))
    (request,) = server.requests
    assert json.loads(request.body) == {
        "RoleArn": ROLE.arn,
        "RoleSessionName": "night",
        "DurationSeconds": 3600,
        "ExternalId": "agreed-1",
    }


@pytest.mark.parametrize("code", ["SecretIdNotFound", "SignatureFailure", "TokenFailure"])
async def test_replaced_base_credential_is_read_again(server: ScriptedServer, code: str) -> None:
    """A credential that STS refuses is read again, and the role is tried once more."""
    server.respond(refused(f"AuthFailure.{code}"), Answer(api(ASSUMED), "close"))
    credential = await assume(server.url, RotatedCredentials())
    assert credential.secret_id == "AKIDlent"
    signed_by = [request.headers["authorization"] for request in server.requests]
    assert f"Credential={CREDENTIAL.secret_id}/" in signed_by[0]
    assert f"Credential={OTHER.secret_id}/" in signed_by[1]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AuthFailure.SecretIdNotFound", "that the key exists"),
        ("AuthFailure.UnauthorizedOperation", "sts:AssumeRole"),
        ("ResourceNotFound.RoleNotFound", "the role exists"),
        ("UnauthorizedOperation", "sts:AssumeRole"),
        ("InternalError.SystemError", "is temporary"),
    ],
)
async def test_refusal_has_a_remedy(server: ScriptedServer, code: str, remedy: str) -> None:
    """The error has a remedy and the code, message and RequestId of the refusal.

    The same credential is not tried twice.
    """
    server.respond(refused(code))
    with pytest.raises(CredentialError) as caught:
        await assume(server.url)
    assert f"{ROLE.arn} cannot be assumed: {code}: No. (RequestId r-1)." in caught.value.message
    assert remedy in caught.value.remedy
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(then="reset"), "cannot be reached"),
        (
            Answer(http("<html>", status="502 Bad Gateway"), "close"),
            "something else did, with HTTP 502",
        ),
        (Answer(api({"RequestId": "r-1"}), "close"), "returned no credential"),
        (
            Answer(api({**ASSUMED, "Credentials": {**LENT, "Token": 7}}), "close"),
            "returned no credential",
        ),
    ],
)
async def test_unusable_answer_is_not_quoted(
    server: ScriptedServer, answer: Answer, message: str
) -> None:
    """The error says what came instead of a credential, and shows nothing of it."""
    server.respond(answer)
    with pytest.raises(CredentialError, match=message) as caught:
        await assume(server.url)
    assert SECRET not in str(caught.value)
    assert "run again" in caught.value.remedy


@pytest.mark.parametrize(
    ("role", "own", "code"),
    [
        (Role("exporter", "orchestrator"), OWN, "InvalidParameter.ParamError"),
        (ROLE, Credential(OWN.secret_id, SECRET), "AuthFailure.SignatureFailure"),
    ],
)
async def test_refusal_shows_code_and_request_id(
    simulator: Simulator, role: Role, own: Credential, code: str
) -> None:
    """The message has the vendor's code and RequestId, and no secret."""
    with pytest.raises(CredentialError, match=code) as caught:
        await assume(simulator.url, FixedCredentials(own), role)
    assert "RequestId" in caught.value.message
    assert SECRET not in str(caught.value)


async def test_wrong_clock_is_corrected_by_sts(simulator: Simulator) -> None:
    """The Date header of the refusal dates the second signature."""
    simulator.change(skew=3600)
    credential = await assume(simulator.url, FixedCredentials(OWN))
    assert credential.secret_id.startswith("AKIDlent")
    assert len(simulator.ledger) == 2


async def test_sts_outage_is_an_error(simulator: Simulator) -> None:
    """An outage, a strange answer and an internal error of STS are reported as such."""
    own = FixedCredentials(OWN)
    simulator.set_faults(Fault("reset", action="sts"))
    with pytest.raises(CredentialError, match="cannot be reached"):
        await assume(simulator.url, own)
    simulator.set_faults(Fault("bare", action="sts"))
    with pytest.raises(CredentialError, match="something else did"):
        await assume(simulator.url, own)
    simulator.set_faults()
    simulator.change(codes=(Refusal("InternalError", action="AssumeRole"),))
    with pytest.raises(CredentialError, match="InternalError"):
        await assume(simulator.url, own)
