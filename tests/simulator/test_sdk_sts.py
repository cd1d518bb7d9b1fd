"""Temporary keys, fetched and used by the vendor's own clients."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from qcloud_cos import CosServiceError
from tencentcloud.common import credential
from tencentcloud.common.exception import TencentCloudSDKException
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.cvm.v20170312 import models

from orchestrator.simulator import DEFAULT_KEY, Key, Refusal, Settings, Simulator, SimulatorOptions

from .clients import BUCKET, call, code_of, make_cos, make_sts, make_sync_cvm, run_in_thread

pytestmark = pytest.mark.anyio

ARN = "qcs::cam::uin/100000000001:roleName/exporter"
ROLES = "/latest/meta-data/cam/security-credentials/"


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use HTTP without a proxy: the vendor's STS client has no setting for them."""
    monkeypatch.setattr(credential, "HttpProfile", partial(HttpProfile, protocol="http"))
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A cloud in which this machine is an instance with a role."""
    settings = Settings(instance_role="exporter", limits={})
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


def assume_role(simulator: Simulator, key: Key = DEFAULT_KEY, arn: str = ARN, **more: Any) -> Any:
    """Return the vendor's client that assumes a role."""
    endpoint = f"127.0.0.1:{simulator.port}"
    return credential.STSAssumeRoleCredential(
        key.secret_id, key.secret_key, arn, "night", endpoint=endpoint, **more
    )


async def read_key(source: Any) -> Key:
    """Return the key of one of the vendor's credential sources."""
    secret_id, secret_key, token = await run_in_thread(source.get_credential_info)
    return Key(secret_id, secret_key, token=token)


async def test_key_of_an_assumed_role(simulator: Simulator) -> None:
    """A key and token from the vendor's STS client sign requests to CVM and COS."""
    key = await read_key(assume_role(simulator))
    described = await run_in_thread(make_sync_cvm(simulator, key).DescribeImages, _one_image())
    assert described.ImageSet[0].ImageId == "img-00000001"
    assert await run_in_thread(make_cos(simulator, key).list_objects, Bucket=BUCKET)
    assert simulator.temporary_keys[-1] == Key(
        key.secret_id,
        key.secret_key,
        DEFAULT_KEY.account,
        key.token,
        simulator.temporary_keys[-1].expires_at,
    )


async def test_key_of_the_instance_role(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key from the vendor's metadata client signs requests to CVM and COS."""
    reader = credential.CVMRoleCredential
    monkeypatch.setattr(reader, "_role_endpoint", simulator.url + ROLES)
    key = await read_key(reader())
    assert key.token
    await run_in_thread(make_sync_cvm(simulator, key).DescribeImages, _one_image())
    await run_in_thread(make_cos(simulator, key).list_objects, Bucket=BUCKET)


async def test_instance_without_a_role(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Without a role, or for another role, the answer is 404."""
    assert (await http.get(f"{simulator.url}{ROLES}other")).status_code == 404
    simulator.change(instance_role="")
    assert (await http.get(f"{simulator.url}{ROLES}")).status_code == 404


@pytest.mark.parametrize(
    ("how", "refusal"),
    [
        ({"arn": "qcs::cam::uin/1:role/tencentcloudServiceRoleName/CVM_QCSRole"}, None),
        ({"arn": "qcs::cam::uin/1:role/4611686018427397919"}, None),
        ({"arn": "exporter"}, "InvalidParameter.ParamError"),
        ({"arn": "qcs::cam::uin/1:roleName/gone"}, "ResourceNotFound.RoleNotFound"),
        ({"duration_seconds": 43_201}, "InvalidParameter.OverTimeError"),
        ({"key": Key("AKIDnobody", "x")}, "AuthFailure.SecretIdNotFound"),
        ({"key": Key(DEFAULT_KEY.secret_id, "x")}, "AuthFailure.SignatureFailure"),
    ],
)
async def test_assume_role_checks_its_parameters(
    simulator: Simulator, how: dict[str, Any], refusal: str | None
) -> None:
    """AssumeRole accepts roles by number or name, and refuses invalid parameters.

    Unknown roles, durations that are too long, and wrong keys are refused, too.
    """
    simulator.change(absent_roles=("gone",))
    if refusal is None:
        assert (await read_key(assume_role(simulator, **how))).token
        return
    with pytest.raises(TencentCloudSDKException) as caught:
        await read_key(assume_role(simulator, **how))
    assert caught.value.code == refusal
    assert caught.value.requestId


@pytest.mark.parametrize(
    ("setting", "cvm_says", "cos_says"),
    [
        ("revoked", "AuthFailure.SecretIdNotFound", (403, "InvalidAccessKeyId")),
        ("withdrawn", "AuthFailure.TokenFailure", (400, "ExpiredToken")),
    ],
)
async def test_keys_can_be_revoked_or_withdrawn(
    simulator: Simulator, setting: str, cvm_says: str, cos_says: tuple[int, str]
) -> None:
    """Revoked keys are unknown; keys with a withdrawn token are expired."""
    key = await read_key(assume_role(simulator))
    simulator.change(**{setting: (key.secret_id,)})
    with pytest.raises(TencentCloudSDKException) as by_cvm:
        await run_in_thread(make_sync_cvm(simulator, key).DescribeImages, _one_image())
    assert by_cvm.value.code == cvm_says
    with pytest.raises(CosServiceError) as by_cos:
        await run_in_thread(make_cos(simulator, key).list_objects, Bucket=BUCKET)
    assert (by_cos.value.get_status_code(), by_cos.value.get_error_code()) == cos_says
    assert (await read_key(assume_role(simulator))).secret_id != key.secret_id


async def test_temporary_keys_expire(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """They are valid until the second that STS returned, on the server's clock."""
    key = await read_key(assume_role(simulator, duration_seconds=250))
    asked = {"ImageIds": ["img-00000001"]}
    simulator.change(skew=240)
    assert code_of(await call(http, simulator, "DescribeImages", asked, key=key)) is None
    simulator.change(skew=260)
    refused = await call(http, simulator, "DescribeImages", asked, key=key)
    assert code_of(refused) == "AuthFailure.TokenFailure"


@pytest.mark.parametrize("token", [None, "another"])
async def test_temporary_keys_need_their_token(simulator: Simulator, token: str | None) -> None:
    """Without the token, or with another, the key is refused."""
    lent = await read_key(assume_role(simulator))
    key = Key(lent.secret_id, lent.secret_key, token=token)
    with pytest.raises(TencentCloudSDKException, match=r"AuthFailure\.TokenFailure"):
        await run_in_thread(make_sync_cvm(simulator, key).DescribeImages, _one_image())


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_caller_identity_of_a_permanent_key(simulator: Simulator, method: str) -> None:
    """A permanent key is a user of its account, and the ledger has the action."""
    answer = await run_in_thread(
        make_sts(simulator, method=method).call_json, "GetCallerIdentity", {}
    )
    account, entry = DEFAULT_KEY.account, simulator.ledger[-1]
    assert answer["Response"] == {
        "Type": "CAMUser",
        "AccountId": account,
        "UserId": account,
        "PrincipalId": account,
        "Arn": f"qcs::cam:{account}:uin/{account}",
        "RequestId": entry.request_id,
    }
    assert (entry.service, entry.action) == ("sts", "GetCallerIdentity")
    assert (entry.account, entry.code) == (account, None)


async def test_caller_identity_of_a_temporary_key(simulator: Simulator) -> None:
    """The key of an assumed role is a role of the account that assumed it."""
    key = await read_key(assume_role(simulator))
    answer = (await run_in_thread(make_sts(simulator, key).call_json, "GetCallerIdentity", {}))[
        "Response"
    ]
    role = answer["UserId"].partition(":")[0]
    assert (answer["Type"], answer["AccountId"]) == ("CAMRole", DEFAULT_KEY.account)
    assert answer["Arn"] == f"qcs::sts:{DEFAULT_KEY.account}:assumed-role/{role}"


@pytest.mark.parametrize(
    ("key", "given", "refusal"),
    [
        (Key("AKIDnobody", "x"), {}, "AuthFailure.SecretIdNotFound"),
        (Key(DEFAULT_KEY.secret_id, "x"), {}, "AuthFailure.SignatureFailure"),
        (replace(DEFAULT_KEY, token="a-token"), {}, "AuthFailure.TokenFailure"),
        (DEFAULT_KEY, {"RoleArn": ARN}, "UnknownParameter"),
    ],
)
async def test_caller_identity_is_refused(
    simulator: Simulator, key: Key, given: dict[str, Any], refusal: str
) -> None:
    """A wrong key and any parameter are refused."""
    with pytest.raises(TencentCloudSDKException) as caught:
        await run_in_thread(make_sts(simulator, key).call_json, "GetCallerIdentity", given)
    assert caught.value.code == simulator.ledger[-1].code == refusal


@pytest.mark.parametrize(
    ("action", "version", "refusal"),
    [
        ("GetCallerIdentity", "2017-03-12", "NoSuchVersion"),
        ("GetFederationToken", "2018-08-13", "InvalidAction"),
    ],
)
async def test_unknown_action_of_sts_is_refused(
    simulator: Simulator, http: httpx.AsyncClient, action: str, version: str, refusal: str
) -> None:
    """STS has two actions, and one version."""
    answer = await call(http, simulator, action, {}, service="sts", version=version)
    assert code_of(answer) == refusal


async def test_caller_identity_is_refused_by_rule(simulator: Simulator) -> None:
    """A rule for the action raises its code."""
    simulator.change(codes=(Refusal("InternalError", action="GetCallerIdentity", times=1),))
    client = make_sts(simulator)
    with pytest.raises(TencentCloudSDKException, match="InternalError"):
        await run_in_thread(client.call_json, "GetCallerIdentity", {})
    assert await run_in_thread(client.call_json, "GetCallerIdentity", {})


def _one_image() -> Any:
    request = models.DescribeImagesRequest()
    request.ImageIds = ["img-00000001"]
    return request
