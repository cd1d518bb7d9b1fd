"""Signatures, compared byte for byte with the vendor's own signers."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth
from tencentcloud.common.credential import Credential as VendorCredential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.cvm.v20170312.cvm_client import CvmClient as VendorClient

from orchestrator.cloud.cos_signing import cos_headers
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.tc3_signing import tc3_headers
from tests.cloud.scripted_server import CREDENTIAL, NOON, TEMPORARY

# the vendor's client calls datetime.utcfromtimestamp, which Python 3.12 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")

often = settings(max_examples=200, deadline=None)
key_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=48)
credentials = st.builds(Credential, key_text, key_text, st.none() | key_text)
hosts = st.sampled_from(
    ["cvm.intl.tencentcloudapi.com", "cvm.ap-singapore.tencentcloudapi.com", "127.0.0.1:8080"]
)
bodies = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.lists(st.text()))
moments = st.integers(10**9, 4 * 10**9).map(lambda second: datetime.fromtimestamp(second, UTC))


def vendor_client(credential: Credential, host: str, region: str = "ap-tokyo") -> VendorClient:
    keys = VendorCredential(credential.secret_id, credential.secret_key, credential.token)
    return VendorClient(keys, region, ClientProfile(httpProfile=HttpProfile(endpoint=host)))


@often
@given(credential=credentials, host=hosts, body=bodies)
def test_tc3_headers_equal_those_of_the_vendors_client(
    credential: Credential, host: str, body: dict[str, object]
) -> None:
    """The headers of a request equal those that the vendor's client sends.

    These are Host, Content-Type, time, token and Authorization.
    """
    theirs = RequestInternal(host, "POST", "/", header={})
    vendor_client(credential, host)._build_req_with_tc3_signature("ExportImages", body, theirs)
    timestamp = datetime.fromtimestamp(int(theirs.header["X-TC-Timestamp"]), UTC)
    content = theirs.data.encode()
    ours = tc3_headers(credential, service="cvm", host=host, body=content, timestamp=timestamp)
    for name in ("Host", "Content-Type", "X-TC-Timestamp", "X-TC-Token", "Authorization"):
        assert ours.get(name) == theirs.header.get(name)


@often
@given(credential=credentials, host=hosts, body=st.text(), moment=moments)
def test_tc3_signatures_equal_the_vendors_at_any_time(
    credential: Credential, host: str, body: str, moment: datetime
) -> None:
    """The signature of any body at any second is the vendor's signature of it."""
    stamp, day = str(int(moment.timestamp())), moment.date().isoformat()
    headers = {"Content-Type": "application/json", "Host": host, "X-TC-Timestamp": stamp}
    theirs = RequestInternal(host, "POST", "/", data=body, header=headers)
    client = vendor_client(credential, host)
    signature = client._get_tc3_signature({}, theirs, day, "cvm", credential.secret_key)
    ours = tc3_headers(credential, service="cvm", host=host, body=body.encode(), timestamp=moment)
    assert ours["Authorization"] == (
        f"TC3-HMAC-SHA256 Credential={credential.secret_id}/{day}/cvm/tc3_request, "
        f"SignedHeaders=content-type;host, Signature={signature}"
    )


@often
@given(
    credential=credentials,
    method=st.sampled_from(["GET", "HEAD"]),
    key=st.text(max_size=40),
    params=st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=20), max_size=6),
)
def test_cos_signatures_equal_the_vendors(
    credential: Credential,
    method: str,
    key: str,
    params: dict[str, str],
) -> None:
    """Headers for any key, query and credential equal those of the vendor's client."""
    config = CosConfig(
        Region="ap-tokyo", SecretId=credential.secret_id, SecretKey=credential.secret_key
    )
    host = "b-1.cos.ap-tokyo.myqcloud.com"
    token = {"x-cos-security-token": credential.token} if credential.token else {}
    theirs = SimpleNamespace(method=method, url=f"https://{host}/", headers={"Host": host, **token})
    CosS3Auth(config, key, params, expire=600)(theirs)
    began = theirs.headers["Authorization"].partition("q-sign-time=")[2].partition(";")[0]
    ours = cos_headers(
        credential,
        method=method,
        host=host,
        path=key if key.startswith("/") else f"/{key}",
        params=params,
        now=datetime.fromtimestamp(int(began) + 60, UTC),
    )
    assert ours == theirs.headers


def head(credential: Credential) -> dict[str, str]:
    """Return the headers of a HEAD request of COS at noon."""
    return cos_headers(credential, method="HEAD", host="h", path="/key", params={}, now=NOON)


def test_token_of_a_temporary_credential_is_signed() -> None:
    """The token of a temporary credential is a signed header of COS requests."""
    headers = head(TEMPORARY)
    assert headers["x-cos-security-token"] == TEMPORARY.token
    assert "q-header-list=host;x-cos-security-token&" in headers["Authorization"]


def test_permanent_credential_sends_no_token() -> None:
    """Without a token no header for one is sent."""
    cvm = tc3_headers(CREDENTIAL, service="cvm", host="h", body=b"", timestamp=NOON)
    assert head(CREDENTIAL).keys() == {"Host", "Authorization"}
    assert "X-TC-Token" not in cvm


def test_cos_signature_starts_a_minute_ago() -> None:
    """A server whose clock is up to a minute behind accepts the signature."""
    noon = int(NOON.timestamp())
    assert f"q-sign-time={noon - 60};{noon + 600}&" in head(CREDENTIAL)["Authorization"]


def test_day_of_a_signature_is_in_utc() -> None:
    """The signature has the UTC day, not the day of the time's own zone."""
    tokyo = NOON.astimezone(tz=datetime.strptime("+0900", "%z").tzinfo) + timedelta(hours=9)
    headers = tc3_headers(CREDENTIAL, service="cvm", host="h", body=b"", timestamp=tokyo)
    assert "/2026-03-01/cvm/tc3_request" in headers["Authorization"]


def test_body_is_signed_as_it_is_sent() -> None:
    """Two bodies with the same meaning but different bytes have different signatures."""
    signatures = set()
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps({"a": [1, 2]}, separators=separators).encode()
        headers = tc3_headers(CREDENTIAL, service="cvm", host="h", body=body, timestamp=NOON)
        signatures.add(headers["Authorization"])
    assert len(signatures) == 2
