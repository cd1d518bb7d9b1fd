"""Both clients against the whole cloud on loopback, which checks every signature itself."""

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

from .looks import Look, every_look
from .scripted import HeldKeys

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
    """A cloud that knows a permanent and a temporary key."""
    settings = Settings(duration=Duration(seconds=1.0), queue_delay=0.0)
    options = SimulatorOptions(keys=(DEFAULT_KEY, TEMPORARY), settings=settings)
    async with Simulator(options) as simulator:
        yield simulator


@pytest.fixture
def clock() -> ServerClock:
    """The server's clock, at first this machine's."""
    return ServerClock(SystemClock())


@pytest.fixture
def keys() -> HeldKeys:
    """The source of both clients' keys, which the simulator accepts."""
    return HeldKeys(GOOD)


@pytest.fixture
def cvm(simulator: Simulator, client: HttpClient, clock: ServerClock) -> CvmClient:
    """CVM at the simulator."""
    return CvmClient(client, endpoint=simulator.url, clock=clock, timeout=60.0)


@pytest.fixture
def cos(simulator: Simulator, client: HttpClient, clock: ServerClock, keys: HeldKeys) -> CosClient:
    """COS at the simulator."""
    return CosClient(client, endpoint=simulator.url, credentials=keys, clock=clock, timeout=60.0)


async def export(cvm: CvmClient, clock: ServerClock, keys: Credential = GOOD) -> Reply:
    return await cvm.export_images(ORDER, signed_at=clock.now(), credential=keys)


@pytest.mark.parametrize("credential", [GOOD, GOOD_TOKEN], ids=["permanent", "temporary"])
async def test_an_export_is_seen_as_uploads_and_then_as_objects(
    cvm: CvmClient, cos: CosClient, clock: ServerClock, keys: HeldKeys, credential: Credential
) -> None:
    """From order to object, every path that was promised is first written, then there."""
    keys.credential = credential
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


async def test_a_wrong_key_stops_the_credential(cvm: CvmClient, clock: ServerClock) -> None:
    """A wrong SecretKey is told as such, and no export begins."""
    code = code_for_reply(await export(cvm, clock, WRONG_KEY))
    assert code.name == "AuthFailure.SignatureFailure"
    assert (code.reaction, code.scope) == (Reaction.STOP, Scope.CREDENTIAL)


async def test_an_unknown_key_is_not_found(cvm: CvmClient, clock: ServerClock) -> None:
    """A SecretId that does not exist is told as such."""
    reply = await export(cvm, clock, Credential("AKIDnobody", "x"))
    assert reply.error_code == "AuthFailure.SecretIdNotFound"


async def test_a_wrong_token_asks_for_new_keys(cvm: CvmClient, clock: ServerClock) -> None:
    """Temporary keys with another token call for a renewal."""
    code = code_for_reply(await export(cvm, clock, WRONG_TOKEN))
    assert (code.name, code.reaction) == ("AuthFailure.TokenFailure", Reaction.REFRESH)


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_an_expired_signature_is_refused_and_teaches_the_time(
    simulator: Simulator, cvm: CvmClient, clock: ServerClock, minutes: int
) -> None:
    """Where the clocks differ the first order is refused, and one dated anew is accepted."""
    simulator.change(skew=60.0 * minutes)
    refused = await export(cvm, clock)
    assert code_for_reply(refused).reaction is Reaction.RESIGN
    assert abs(clock.offset - timedelta(minutes=minutes)) < timedelta(minutes=1)
    assert code_for_reply(await export(cvm, clock)).reaction is Reaction.ACCEPT


@every_look
async def test_a_look_with_a_wrong_key_is_refused(
    cos: CosClient, keys: HeldKeys, look: Look
) -> None:
    """COS refuses every kind of look whose signature is not right."""
    keys.credential = WRONG_KEY
    with pytest.raises(CloudRefusal) as caught:
        await look(cos)
    assert caught.value.http_status == 403
    assert caught.value.code in {"SignatureDoesNotMatch", "Http403"}


async def test_a_look_with_an_expired_signature_teaches_the_time(
    simulator: Simulator, cos: CosClient
) -> None:
    """A look dated by a clock that is hours off is refused, and the next one is dated right."""
    simulator.change(skew=7200.0)
    with pytest.raises(CloudRefusal) as caught:
        await cos.list_objects(REGION, BUCKET, "")
    assert cos_code_for(caught.value).reaction is Reaction.RESIGN
    assert await cos.list_objects(REGION, BUCKET, "") == ()


async def test_a_bucket_that_is_not_there_is_refused(simulator: Simulator, cos: CosClient) -> None:
    """A missing bucket is told from an empty one, and a key in it is not there."""
    simulator.change(buckets={BUCKET: BucketSettings(missing=True)})
    for look in (
        cos.list_objects(REGION, BUCKET, ""),
        cos.list_uploads(REGION, BUCKET, ""),
    ):
        with pytest.raises(CloudRefusal) as caught:
            await look
        code = cos_code_for(caught.value)
        assert (code.reaction, code.scope) == (Reaction.STOP, Scope.BUCKET)
    assert await cos.head_object(REGION, BUCKET, "key") is None


async def test_a_lost_answer_is_in_doubt_and_was_sent_once(
    simulator: Simulator, cvm: CvmClient, clock: ServerClock
) -> None:
    """Where the connection breaks after the export began, one request was sent, not two."""
    simulator.set_faults(Fault(kind="reset", action="ExportImages", after=True))
    with pytest.raises(httpx.HTTPError) as caught:
        await export(cvm, clock)
    assert code_for_exception(caught.value).reaction is Reaction.RECONCILE
    assert [entry.accepted for entry in simulator.ledger] == [True]


async def test_an_unknown_image_refuses_its_whole_description(
    simulator: Simulator, cvm: CvmClient
) -> None:
    """A hundred images are described at once, and a malformed id among them refuses them all."""
    ids = [f"img-{number:08}" for number in range(100)]
    images = await cvm.describe_images(REGION, ids, credential=GOOD)
    assert {image.image_id for image in images} == set(ids)
    with pytest.raises(CloudRefusal, match="InvalidImageId"):
        await cvm.describe_images(REGION, [*ids[1:], "nonsense"], credential=GOOD)
    assert len(simulator.ledger) == 2
