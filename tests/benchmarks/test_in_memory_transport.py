"""The transport to a cloud in the same process: its latency and its checks of requests."""

import random

import anyio
import httpx

from benchmarks.in_memory_transport import InMemoryTransport
from benchmarks.virtual import VirtualClock, in_virtual_time
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.http_client import HttpClient
from orchestrator.model import ObjectFacts
from orchestrator.simulator import DEFAULT_KEY, SimulatorOptions
from orchestrator.simulator.buckets import make_object
from orchestrator.simulator.cloud import Clocks, Cloud
from tests.cloud.scripted_server import FixedCredentials


def test_answer_arrives_after_the_latency_of_both_directions() -> None:
    """An answer arrives after the latency of the request and of the answer.

    The cloud checks the signature of the request by the event loop's clock.
    """

    async def work() -> tuple[ObjectFacts | None, float]:
        cloud = Cloud(SimulatorOptions(), Clocks(_now, anyio.current_time))
        cloud.buckets.put("b-1", "ap-tokyo", make_object("key", 7, _now(), "salt"))
        async with InMemoryTransport(cloud, (1.0, 1.5), random.Random(1)) as way:
            over_memory = httpx.AsyncClient(transport=way)
            http = HttpClient(over_memory)
            clock = ServerClock(VirtualClock())
            credential = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)
            keys = FixedCredentials(credential)
            cos = CosClient(http, endpoint="http://cos", credentials=keys, clock=clock, timeout=9)
            found = await cos.head_object("ap-tokyo", "b-1", "key")
        (entry,) = cloud.ledger.entries
        assert 1.0 <= entry.monotonic <= 1.5
        return found, anyio.current_time()

    found, passed = in_virtual_time(work)
    assert found is not None
    assert found.size == 7
    assert 2.0 <= passed <= 3.0


def _now() -> float:
    return VirtualClock().now().timestamp()
