"""Both clients against the simulator on loopback, which checks every signature itself."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.cloud.error_codes import cos_code_for
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import ExportOrder, ImageFormat, Reaction, Reply, Scope
from orchestrator.simulator import (
    DEFAULT_KEY,
    BucketSettings,
    Duration,
    Fault,
    Key,
    Settings,
    Simulator,
    SimulatorOptions,
)
from tests.cloud.scripted_server import FixedCredentials

from .bucket_reads import Read, every_read

pytestmark = pytest.mark.anyio

REGION, BUCKET, IMAGE = "ap-tokyo", "backup-1250000000", "img-aaaaaaaa"
TEMPORARY = Key("AKIDtemporary", "another-key-of-nobody", token="a-token-of-nobody")
GOOD = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)
WRONG_KEY = Credential(DEFAULT_KEY.secret_id, "wrong")
GOOD_TOKEN = Credential(TEMPORARY.secret_id, TEMPORARY.secret_key, TEMPORARY.token)
WRONG_TOKEN = Credential(TEMPORARY.secret_id, TEMPORARY.secret_key, "wrong")
ORDER = ExportOrder(REGION, (IMAGE,), BUCKET, ImageFormat.QCOW2, "night-", False, None)


@pytest.fixture
async def simulator(anyio_backend: str) -> AsyncIterator[Simulator]:
    """Run a simulator that accepts a permanent and a temporary API key."""
    settings = Settings(duration=Duration(seconds=1.0), queue_delay=0.0)
    options = SimulatorOptions(keys=(DEFAULT_KEY, TEMPORARY), settings=settings)
    async with Simulator(options) as simulator:
        yield simulator


@pytest.fixture
def clock() -> ServerClock:
    """Return a server's clock that still equals this machine's."""
    return ServerClock(SystemClock())


@pytest.fixture
def credentials() -> FixedCredentials:
    """Return a credential that the simulator accepts."""
    return FixedCredentials(GOOD)


@pytest.fixture
def cvm(simulator: Simulator, client: HttpClient, clock: ServerClock) -> CvmClient:
    """Return a CVM client of the simulator."""
    return CvmClient(client, endpoint=simulator.url, clock=clock, timeout=60.0)


@pytest.fixture
def cos(
    simulator: Simulator, client: HttpClient, clock: ServerClock, credentials: FixedCredentials
) -> CosClient:
    """Return a COS client of the simulator."""
    return CosClient(
        client, endpoint=simulator.url, credentials=credentials, clock=clock, timeout=60.0
    )


async def export(cvm: CvmClient, clock: ServerClock, credential: Credential = GOOD) -> Reply:
    return await cvm.export_images(ORDER, signed_at=clock.now(), credential=credential)


@pytest.mark.parametrize("credential", [GOOD, GOOD_TOKEN], ids=["permanent", "temporary"])
async def test_export_shows_first_uploads_and_then_objects(
    cvm: CvmClient,
    cos: CosClient,
    clock: ServerClock,
    credentials: FixedCredentials,
    credential: Credential,
) -> None:
    """Every path in the answer is first an upload under way and then an object."""
    credentials.credential = credential
    (image,) = await cvm.describe_images(REGION, [IMAGE], credential=credential)
    reply = await export(cvm, clock, credential)
    assert code_for_reply(reply).reaction is Reaction.ACCEPT
    expected = {path.removeprefix("/") for path in reply.cos_paths}
    assert len(expected) == len(image.disks)
    assert {upload.key for upload in await cos.list_uploads(REGION, BUCKET, "night-")} == expected
    while await cos.list_uploads(REGION, BUCKET, "night-"):
        pass
    listed = await cos.list_objects(REGION, BUCKET, "night-")
    assert {found.key for found in listed} == expected
    for found in listed:
        headed = await cos.head_object(REGION, BUCKET, found.key)
        assert headed is not None
        assert (headed.size, headed.etag) == (found.size, found.etag)
        assert headed.crc64 is not None
        assert headed.crc64.isdecimal()


async def test_wrong_secret_key_halts_the_credential(cvm: CvmClient, clock: ServerClock) -> None:
    """A wrong SecretKey is refused as such, and no export begins."""
    code = code_for_reply(await export(cvm, clock, WRONG_KEY))
    assert code.name == "AuthFailure.SignatureFailure"
    assert (code.reaction, code.scope) == (Reaction.HALT, Scope.CREDENTIAL)


async def test_unknown_secret_id_is_not_found(cvm: CvmClient, clock: ServerClock) -> None:
    """A SecretId that does not exist is refused as such."""
    reply = await export(cvm, clock, Credential("AKIDnobody", "x"))
    assert reply.error_code == "AuthFailure.SecretIdNotFound"


async def test_wrong_token_calls_for_a_renewal(cvm: CvmClient, clock: ServerClock) -> None:
    """A temporary key with a wrong token must be renewed."""
    code = code_for_reply(await export(cvm, clock, WRONG_TOKEN))
    assert (code.name, code.reaction) == ("AuthFailure.TokenFailure", Reaction.REFRESH)


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_clock_is_corrected_by_a_refused_signature(
    simulator: Simulator, cvm: CvmClient, clock: ServerClock, minutes: int
) -> None:
    """If the clocks differ, the first order is refused and the next one is accepted."""
    simulator.change(skew=60.0 * minutes)
    refused = await export(cvm, clock)
    assert code_for_reply(refused).reaction is Reaction.RESIGN
    assert abs(clock.offset - timedelta(minutes=minutes)) < timedelta(minutes=1)
    assert code_for_reply(await export(cvm, clock)).reaction is Reaction.ACCEPT


@every_read
async def test_read_with_a_wrong_key_is_refused(
    cos: CosClient, credentials: FixedCredentials, read: Read
) -> None:
    """COS refuses every kind of read whose signature is wrong."""
    credentials.credential = WRONG_KEY
    with pytest.raises(CloudRefusal) as caught:
        await read(cos)
    assert caught.value.http_status == 403
    assert caught.value.code in {"SignatureDoesNotMatch", "Http403"}


@pytest.mark.parametrize("hours", [-2, 2])
async def test_cos_clock_is_corrected_by_a_refused_signature(
    simulator: Simulator, cos: CosClient, hours: int
) -> None:
    """A read dated hours wrong is refused, and repeated with the right date."""
    simulator.change(cos_skew=3600.0 * hours)
    assert await cos.list_objects(REGION, BUCKET, "") == ()
    assert await cos.list_objects(REGION, BUCKET, "") == ()
    assert len(simulator.ledger) == 3


@pytest.mark.parametrize("hours", [-2, 2])
async def test_wrong_date_header_of_cos_is_not_believed(
    simulator: Simulator, cos: CosClient, hours: int
) -> None:
    """A CDN that sends a wrong Date costs one more request, once."""
    simulator.change(cos_date_skew=3600.0 * hours)
    for _ in range(4):
        assert await cos.list_objects(REGION, BUCKET, "") == ()
    assert len(simulator.ledger) <= 5


async def test_missing_bucket_is_refused(simulator: Simulator, cos: CosClient) -> None:
    """Listing a missing bucket is an error, and a key in it does not exist."""
    simulator.change(buckets={BUCKET: BucketSettings(missing=True)})
    for listing in (
        cos.list_objects(REGION, BUCKET, ""),
        cos.list_uploads(REGION, BUCKET, ""),
    ):
        with pytest.raises(CloudRefusal) as caught:
            await listing
        code = cos_code_for(caught.value)
        assert (code.reaction, code.scope) == (Reaction.HALT, Scope.BUCKET)
    assert await cos.head_object(REGION, BUCKET, "key") is None


async def test_lost_answer_was_one_request(
    simulator: Simulator, cvm: CvmClient, clock: ServerClock
) -> None:
    """If the connection breaks after the export began, one request was sent, not two."""
    simulator.set_faults(Fault(kind="reset", action="ExportImages", after=True))
    with pytest.raises(httpx.HTTPError) as caught:
        await export(cvm, clock)
    assert code_for_exception(caught.value).reaction is Reaction.RECONCILE
    assert [entry.accepted for entry in simulator.ledger] == [True]


async def test_one_malformed_id_refuses_the_whole_description(
    simulator: Simulator, cvm: CvmClient
) -> None:
    """100 images can be described at once; one malformed id makes the API refuse all."""
    ids = [f"img-{number:08}" for number in range(100)]
    images = await cvm.describe_images(REGION, ids, credential=GOOD)
    assert {image.image_id for image in images} == set(ids)
    with pytest.raises(CloudRefusal, match="InvalidImageId"):
        await cvm.describe_images(REGION, [*ids[1:], "nonsense"], credential=GOOD)
    assert len(simulator.ledger) == 2
