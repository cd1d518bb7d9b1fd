"""One lease is one HTTP request, and always an outcome."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import open_http_client
from orchestrator.model import ExportOrder, ImageFormat, Lease, Outcome, Reaction
from orchestrator.simulator import DEFAULT_KEY, Fault, Settings, Simulator, SimulatorOptions
from orchestrator.worker.send import submit
from tests.end_to_end.harness import BUCKET, REGION, make_image_ids, read_ledger

pytestmark = pytest.mark.anyio

PATIENCE = 60
"""Seconds that an answer may take on a busy machine; only a server that hangs takes them."""


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud without limits."""
    async with Simulator(SimulatorOptions(settings=Settings(cap=None, limits={}))) as running:
        yield running


class DefaultKeys:
    """Provides the credential that the cloud accepts."""

    credential = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)

    async def current(self) -> Credential:
        """Return the credential."""
        return self.credential

    async def renew(self) -> Credential:
        """Return the same credential again."""
        return self.credential


async def submitted(url: str, seconds: float = PATIENCE) -> Outcome:
    """Send one lease to a URL, and return the outcome."""
    keys = DefaultKeys()
    async with open_http_client("tests/1") as http:
        cvm = CvmClient(
            http,
            endpoint=url,
            clock=ServerClock(SystemClock()),
            timeout=seconds,
        )
        return await submit(cvm, lease(datetime.now(UTC)), keys.credential)


def lease(signed_at: datetime) -> Lease:
    """Return a lease for one image."""
    return Lease(
        job_id=1,
        attempt=1,
        owner="me",
        profile="default",
        order=ExportOrder(
            region=REGION,
            image_ids=tuple(make_image_ids(1)),
            bucket=BUCKET,
            format=ImageFormat.RAW,
            name_prefix="tag",
            only_root_disk=False,
            role_name=None,
        ),
        claimed_at=signed_at,
        signed_at=signed_at,
        expires_at=signed_at + timedelta(seconds=45),
    )


async def test_an_answer_is_an_outcome(cloud: Simulator) -> None:
    """The outcome has the vendor's answer, and the request names prefix and bucket."""
    outcome = await submitted(cloud.url)
    (entry,) = read_ledger(cloud)
    assert outcome.code.reaction is Reaction.ACCEPT
    assert (outcome.task_id, outcome.cos_paths) == (entry.task_id, entry.cos_paths)
    assert outcome.request_id == entry.request_id
    assert (entry.bucket, entry.prefixes) == (BUCKET, ("tag",))


@pytest.mark.parametrize(
    ("fault", "code", "seconds"),
    [
        (Fault("reset"), "Client.ReadError", PATIENCE),
        (Fault("half"), "Client.RemoteProtocolError", PATIENCE),
        (Fault("hang"), "Client.ReadTimeout", 1.0),
        (Fault("gateway"), "Client.HttpStatus", PATIENCE),
        (Fault("html"), "Client.NotAnApiAnswer", PATIENCE),
        (Fault("bare"), "Client.NotAnApiAnswer", PATIENCE),
    ],
)
async def test_every_network_fault_is_an_outcome(
    cloud: Simulator, fault: Fault, code: str, seconds: float
) -> None:
    """A network fault is not raised and not retried, and its effect is unknown."""
    cloud.set_faults(fault)
    outcome = await submitted(cloud.url, seconds)
    assert outcome.code.name == code
    assert outcome.code.reaction is Reaction.RECONCILE
    assert outcome.message
    assert len(read_ledger(cloud)) == 1


async def test_a_refused_connection_is_an_outcome() -> None:
    """If nothing listens, nothing was sent, and the endpoint is paused."""
    outcome = await submitted("http://127.0.0.1:9")
    assert outcome.code.name == "Client.ConnectError"
    assert outcome.code.reaction is Reaction.PAUSE
