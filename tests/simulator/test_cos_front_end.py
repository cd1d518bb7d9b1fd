"""The checks of COS before an operation, with signatures by the vendor's signer."""

import httpx
import pytest

from orchestrator.simulator import Simulator

from .clients import BUCKET, make_cos

pytestmark = pytest.mark.anyio

HOST = f"{BUCKET}.cos.ap-singapore.myqcloud.com"


def sign(simulator: Simulator, **parameters: str) -> str:
    """Return the vendor's signature of a listing with these parameters."""
    signature: str = make_cos(simulator).get_auth(
        Method="GET", Bucket=BUCKET, Key="/", Headers={"Host": HOST}, Params=parameters
    )
    return signature


async def send_listing(
    http: httpx.AsyncClient, simulator: Simulator, signature: str, **parameters: str
) -> tuple[int, str]:
    """Send a listing, and return status and body."""
    headers = {"Host": HOST, "Authorization": signature}
    answer = await http.get(f"{simulator.url}/", headers=headers, params=parameters)
    return answer.status_code, answer.text


async def test_signed_parameters_are_verified(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """A changed or missing signed parameter is refused; an extra one is accepted."""
    signature = sign(simulator, prefix="a/ü")
    assert (await send_listing(http, simulator, signature, prefix="a/ü"))[0] == 200
    assert (await send_listing(http, simulator, signature, prefix="a/ü", marker="b"))[0] == 200
    for changed in ({"prefix": "a"}, {}):
        status, body = await send_listing(http, simulator, signature, **changed)
        assert (status, "SignatureDoesNotMatch" in body) == (403, True)


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("q-sign-algorithm=sha1", "q-sign-algorithm=md5"),
        ("q-header-list=", "q-header="),
        ("q-sign-time=", "q-sign-time=then;"),
    ],
)
async def test_malformed_signature_is_denied(
    simulator: Simulator, http: httpx.AsyncClient, part: str, instead: str
) -> None:
    """Another algorithm, a missing part and a wrong period are denied."""
    signature = sign(simulator).replace(part, instead)
    status, body = await send_listing(http, simulator, signature)
    assert (status, "<Code>AccessDenied</Code>" in body) == (403, True)


@pytest.mark.parametrize(
    "parameters", [{"max-keys": "1001"}, {"max-keys": "all"}, {"encoding-type": "base64"}]
)
async def test_listing_parameters_are_checked(
    simulator: Simulator, http: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    """Pages have at most 1000 entries, and only one encoding exists."""
    signature = sign(simulator, **parameters)
    status, body = await send_listing(http, simulator, signature, **parameters)
    assert (status, "<Code>InvalidArgument</Code>" in body) == (400, True)


async def test_without_an_encoding_keys_are_escaped_for_xml(
    simulator: Simulator, http: httpx.AsyncClient
) -> None:
    """Characters with a meaning in XML are escaped."""
    signature = sign(simulator, prefix="<&>")
    _, body = await send_listing(http, simulator, signature, prefix="<&>")
    assert "<Prefix>&lt;&amp;&gt;</Prefix>" in body
