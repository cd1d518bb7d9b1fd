"""What COS checks before it looks into a bucket, with signatures by the vendor's signer."""

import httpx
import pytest

from orchestrator.simulator import Simulator

from .callers import BUCKET, cos

pytestmark = pytest.mark.anyio

HOST = f"{BUCKET}.cos.ap-singapore.myqcloud.com"


def authorization(simulator: Simulator, **parameters: str) -> str:
    """The vendor's signature over a listing with these parameters."""
    signature: str = cos(simulator).get_auth(
        Method="GET", Bucket=BUCKET, Key="/", Headers={"Host": HOST}, Params=parameters
    )
    return signature


async def listing(
    http: httpx.AsyncClient, simulator: Simulator, signature: str, **parameters: str
) -> tuple[int, str]:
    """Status and body of a listing."""
    headers = {"Host": HOST, "Authorization": signature}
    answer = await http.get(f"{simulator.url}/", headers=headers, params=parameters)
    return answer.status_code, answer.text


async def test_signed_parameters_must_arrive_as_signed(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A parameter that was changed or dropped breaks the signature; one more does not."""
    signature = authorization(simulator, prefix="a/ü")
    assert (await listing(http, simulator, signature, prefix="a/ü"))[0] == 200
    assert (await listing(http, simulator, signature, prefix="a/ü", marker="b"))[0] == 200
    for changed in ({"prefix": "a"}, {}):
        status, body = await listing(http, simulator, signature, **changed)
        assert (status, "SignatureDoesNotMatch" in body) == (403, True)


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("q-sign-algorithm=sha1", "q-sign-algorithm=md5"),
        ("q-header-list=", "q-header="),
        ("q-sign-time=", "q-sign-time=then;"),
    ],
)
async def test_a_malformed_signature_is_denied(
    simulator: Simulator, http: httpx.AsyncClient, part: str, instead: str
) -> None:
    """Another algorithm, a missing part and a period that is none are denied."""
    signature = authorization(simulator).replace(part, instead)
    status, body = await listing(http, simulator, signature)
    assert (status, "<Code>AccessDenied</Code>" in body) == (403, True)


@pytest.mark.parametrize(
    "parameters", [{"max-keys": "1001"}, {"max-keys": "all"}, {"encoding-type": "base64"}]
)
async def test_listing_parameters_are_checked(
    simulator: Simulator, http: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    """Pages have at most 1000 entries, and one encoding."""
    signature = authorization(simulator, **parameters)
    status, body = await listing(http, simulator, signature, **parameters)
    assert (status, "<Code>InvalidArgument</Code>" in body) == (400, True)


async def test_without_an_encoding_keys_are_escaped_for_xml(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """What XML would take for markup is escaped."""
    signature = authorization(simulator, prefix="<&>")
    _, body = await listing(http, simulator, signature, prefix="<&>")
    assert "<Prefix>&lt;&amp;&gt;</Prefix>" in body
