"""The role of a TKE pod's service account."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import CredentialError
from tests.cloud.scripted_server import Answer, ScriptedServer, api

from .stored import ENVIRONMENT, SECRET, find, write_tccli

pytestmark = pytest.mark.anyio

ARN = "qcs::cam::uin/100000000001:roleName/pod"
ASSUMED = {
    "Credentials": {"TmpSecretId": "AKIDpod", "TmpSecretKey": SECRET, "Token": "t"},
    "ExpiredTime": 1_900_000_000,
}


@pytest.fixture
def pod(tmp_path: Path) -> dict[str, str]:
    """Write a pod's token, and return the variables that TKE sets."""
    token = tmp_path / "token"
    token.write_text(f"{SECRET}-token\n")
    return {
        "TKE_REGION": "ap-singapore",
        "TKE_PROVIDER_ID": "cls-1",
        "TKE_WEB_IDENTITY_TOKEN_FILE": str(token),
        "TKE_ROLE_ARN": ARN,
    }


async def test_role_is_assumed_without_a_signature(
    tmp_path: Path, pod: dict[str, str], server: ScriptedServer
) -> None:
    """The token alone authenticates the call, as in the vendor's SDK."""
    server.respond(Answer(api(ASSUMED), "close"))
    notes: list[str] = []
    source = await find(tmp_path, pod, endpoint=server.url, notes=notes)
    credential = await source.current()
    (request,) = server.requests
    assert (credential.secret_id, credential.token) == ("AKIDpod", "t")
    assert request.headers["authorization"] == "SKIP"
    assert request.headers["x-tc-action"] == "AssumeRoleWithWebIdentity"
    assert request.headers["x-tc-region"] == "ap-singapore"
    assert json.loads(request.body) == {
        "ProviderId": "cls-1",
        "WebIdentityToken": f"{SECRET}-token",
        "RoleArn": ARN,
        "RoleSessionName": "orchestrator",
        "DurationSeconds": 7200,
    }
    assert notes == [f"Keys: the role {ARN} of this pod's service account (TKE_ROLE_ARN)."]


async def test_stored_keys_precede_the_pods_role(tmp_path: Path, pod: dict[str, str]) -> None:
    """The environment and the files come first, and the message says so."""
    notes: list[str] = []
    await find(tmp_path, {**pod, **ENVIRONMENT}, notes=notes)
    write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    await find(tmp_path, pod, notes=notes)
    assert len(notes) == 2
    assert all("TKE_ROLE_ARN in the environment is not used" in note for note in notes)


async def test_pods_role_precedes_that_of_its_node(
    tmp_path: Path, pod: dict[str, str], server: ScriptedServer
) -> None:
    """The role of a pod precedes the role of its node.

    TKE sets the variables for this pod; the metadata service knows only the node's role.

    The vendor's tools differ: tccli counts the variables among the environment and takes the node's
    role only if it is told to, but the SDK's chain asks for the node's role first. This program has
    the order of tccli everywhere, and a pod that was given a role must not sign with the role that
    all pods of the node share.
    """
    server.respond(Answer(api(ASSUMED), "close"))
    source = await find(tmp_path, pod, endpoint=server.url)
    assert (await source.current()).secret_id == "AKIDpod"
    # the server is the metadata service, too
    assert [request.method for request in server.requests] == ["POST"]


@pytest.mark.parametrize("missing", ["TKE_REGION", "TKE_PROVIDER_ID", "TKE_ROLE_ARN"])
async def test_missing_variable_is_named(tmp_path: Path, pod: dict[str, str], missing: str) -> None:
    """Some of the variables without the others are refused."""
    del pod[missing]
    with pytest.raises(CredentialError, match=f"is set but {missing} is not"):
        await find(tmp_path, pod)


@pytest.mark.parametrize("name", ["/nowhere/token", "/dev/null"])
async def test_missing_token_is_named(tmp_path: Path, pod: dict[str, str], name: str) -> None:
    """A token file that is missing or empty is refused with its path."""
    with pytest.raises(CredentialError) as caught:
        await find(tmp_path, {**pod, "TKE_WEB_IDENTITY_TOKEN_FILE": name})
    expected = f"{name} (TKE_WEB_IDENTITY_TOKEN_FILE) is missing or empty."
    assert caught.value.message == expected


async def test_refusal_names_the_role_and_not_the_token(
    tmp_path: Path, pod: dict[str, str], server: ScriptedServer
) -> None:
    """The message has the role and the vendor's code, and does not show the token.

    The remedy names the identity provider.
    """
    error = {"Code": "InvalidParameter.WebIdentityTokenError", "Message": "No."}
    server.respond(Answer(api({"Error": error, "RequestId": "r-1"}), "close"))
    with pytest.raises(CredentialError, match="WebIdentityTokenError") as caught:
        await find(tmp_path, pod, endpoint=server.url)
    assert ARN in caught.value.message
    assert "identity provider" in caught.value.remedy
    assert SECRET not in str(caught.value)
