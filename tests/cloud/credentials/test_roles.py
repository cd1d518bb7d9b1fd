"""Keys that a role lends: fetched from those who lend them, and renewed in good time."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import CredentialSource
from orchestrator.cloud.credentials.chain import CredentialProviders, find_credentials
from orchestrator.errors import CredentialError
from orchestrator.simulator import (
    DEFAULT_KEY,
    Fault,
    Refusal,
    Settings,
    Simulator,
    SimulatorOptions,
)

ARN = "qcs::cam::uin/100000000001:roleName/exporter"
KEYS = {
    "TENCENTCLOUD_SECRET_ID": DEFAULT_KEY.secret_id,
    "TENCENTCLOUD_SECRET_KEY": DEFAULT_KEY.secret_key,
}
SECRET = "s3cr3t-of-nobody"


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud in which this machine is an instance with a role."""
    settings = Settings(instance_role="exporter")
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


async def find(
    cloud: Simulator, home: Path, environ: dict[str, str] | None = None
) -> CredentialSource:
    """The keys of the default profile."""
    lenders = CredentialProviders(
        cloud.url, cloud.url, ServerClock(SystemClock()), lambda _sentence: None
    )
    return await find_credentials("default", environ or {}, home, lenders)


def write_tccli(home: Path, **fields: Any) -> None:
    """The default profile of tccli."""
    (home / ".tccli").mkdir()
    (home / ".tccli" / "default.credential").write_text(json.dumps(fields))


def asked(cloud: Simulator, service: str) -> int:
    """How many requests a service has had."""
    return sum(entry.service == service for entry in cloud.ledger)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "profile", [None, {"type": "cvm-role"}, {"use-cvm-role": True}, {"use-cvm-role": "true"}]
)
async def test_the_role_of_the_instance(
    cloud: Simulator, tmp_path: Path, profile: dict[str, Any] | None
) -> None:
    """Where tccli's profile says so, or no keys stand anywhere, the instance's role lends its."""
    if profile is not None:
        write_tccli(tmp_path, **profile)
    keys = await (await find(cloud, tmp_path)).current()
    assert keys.secret_id.startswith("AKIDlent")
    assert keys.token is not None
    assert keys.expires_at is not None
    assert asked(cloud, "metadata") == 2


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["environment", "profile", "instance"])
async def test_a_role_is_assumed_with_the_keys_at_hand(
    cloud: Simulator, tmp_path: Path, where: str
) -> None:
    """Keys of the environment, of tccli's profile or of the instance may borrow a role's."""
    environ = {"TENCENTCLOUD_ROLE_ARN": ARN}
    if where == "environment":
        environ |= KEYS
    elif where == "profile":
        own = {"secretId": DEFAULT_KEY.secret_id, "secretKey": DEFAULT_KEY.secret_key}
        write_tccli(tmp_path, **own, **{"role-arn": ARN, "role-session-name": "night"})
        environ = {}
    keys = await (await find(cloud, tmp_path, environ)).current()
    assert keys.secret_id.startswith("AKIDlent")
    assert asked(cloud, "sts") == 1


@pytest.mark.anyio
async def test_no_instance_is_told_with_every_place_looked_at(
    cloud: Simulator, tmp_path: Path
) -> None:
    """Where no place holds keys and no role lends any, the message names them all."""
    cloud.change(instance_role="")
    with pytest.raises(CredentialError, match="No Tencent Cloud keys") as caught:
        await find(cloud, tmp_path)
    assert "the environment" in caught.value.message
    assert "knows of no role of this instance" in caught.value.message


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("reset", action="metadata"), "cannot be reached"),
        (Fault("hang", action="metadata"), "answer within 2 s"),
        (Fault("gateway", action="metadata"), "answers with HTTP 502"),
        (Fault("html", action="metadata"), "no role's name"),
    ],
    ids=["reset", "hang", "gateway", "html"],
)
async def test_a_metadata_service_out_of_order(
    cloud: Simulator, tmp_path: Path, fault: Fault, said: str
) -> None:
    """Whatever it does, it ends in a message, and within seconds."""
    cloud.set_faults(fault)
    write_tccli(tmp_path, type="cvm-role")
    with anyio.fail_after(60), pytest.raises(CredentialError, match=said):
        await find(cloud, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TENCENTCLOUD_ROLE_ARN": "exporter"}, "InvalidParameter.ParamError"),
        ({"TENCENTCLOUD_SECRET_KEY": SECRET}, "AuthFailure.SignatureFailure"),
    ],
)
async def test_what_sts_refuses_is_told(
    cloud: Simulator, tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    """The message has the vendor's code and RequestId, and no secret."""
    with pytest.raises(CredentialError, match=said) as caught:
        await find(cloud, tmp_path, {**KEYS, "TENCENTCLOUD_ROLE_ARN": ARN, **environ})
    assert "RequestId" in caught.value.message
    assert SECRET not in str(caught.value)


@pytest.mark.anyio
async def test_a_role_that_the_instance_may_not_assume(cloud: Simulator, tmp_path: Path) -> None:
    """Where the instance lends keys and STS refuses them a role, STS is told, not missing keys."""
    cloud.change(absent_roles=("exporter",))
    with pytest.raises(CredentialError, match=r"ResourceNotFound\.RoleNotFound") as caught:
        await find(cloud, tmp_path, {"TENCENTCLOUD_ROLE_ARN": ARN})
    assert "No Tencent Cloud keys" not in caught.value.message


@pytest.mark.anyio
async def test_a_clock_that_is_wrong_is_set_right_by_sts(cloud: Simulator, tmp_path: Path) -> None:
    """The Date of the refusal dates the second signature."""
    cloud.change(skew=3600)
    keys = await (await find(cloud, tmp_path, {**KEYS, "TENCENTCLOUD_ROLE_ARN": ARN})).current()
    assert keys.secret_id.startswith("AKIDlent")
    assert asked(cloud, "sts") == 2


@pytest.mark.anyio
async def test_sts_may_fail_and_say_so(cloud: Simulator, tmp_path: Path) -> None:
    """An outage or an internal error of STS is told as such."""
    environ = {**KEYS, "TENCENTCLOUD_ROLE_ARN": ARN}
    cloud.set_faults(Fault("reset", action="sts"))
    with pytest.raises(CredentialError, match="does not answer"):
        await find(cloud, tmp_path, environ)
    cloud.set_faults(Fault("bare", action="sts"))
    with pytest.raises(CredentialError, match="none of its own"):
        await find(cloud, tmp_path, environ)
    cloud.set_faults()
    cloud.change(codes=(Refusal("InternalError", action="AssumeRole"),))
    with pytest.raises(CredentialError, match="InternalError"):
        await find(cloud, tmp_path, environ)
