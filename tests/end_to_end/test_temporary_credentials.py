"""Runs on keys that a role lends for a while."""

from pathlib import Path

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.simulator import Duration, Refusal, Simulator
from tests.end_to_end.scene import Store, accepted, drained, images, once_each, orders, requests

pytestmark = pytest.mark.anyio


def fetches(cloud: Simulator) -> int:
    """How often the keys of the instance's role were fetched: each time its name, and they."""
    return len(requests(cloud, "GetRoleCredentials")) // 2


async def test_keys_that_run_out_are_renewed_before_anybody_is_refused(
    store: Store, cloud: Simulator
) -> None:
    """Over several lives of the keys no request meets one that has ended."""
    cloud.change(instance_role="exporter", lent_for=6, duration=Duration(seconds=9))
    async with store(environ={}) as orchestrator:
        result = await drained(orchestrator, orders(images(10)))
    assert result.counts[JobState.VERIFIED] == 10
    assert accepted(cloud) == once_each(images(10))
    assert fetches(cloud) >= 2
    assert {entry.code for entry in cloud.ledger} <= {None, "NoSuchKey"}


async def test_a_refused_token_is_renewed_once_for_all(store: Store, cloud: Simulator) -> None:
    """However many requests were in the air with it, the keys are fetched anew one time."""
    refused = Refusal("AuthFailure.TokenFailure", times=4)
    cloud.change(instance_role="exporter", codes=(refused,))
    async with store(environ={}, concurrency=4) as orchestrator:
        result = await drained(orchestrator, orders(images(12)))
    assert result.counts[JobState.VERIFIED] == 12
    assert accepted(cloud) == once_each(images(12))
    assert fetches(cloud) == 2


async def test_lent_keys_leave_no_trace(store: Store, cloud: Simulator, tmp_path: Path) -> None:
    """Neither the store nor a sentence holds a key or a token that was lent."""
    cloud.change(instance_role="exporter", codes=(Refusal("AuthFailure.TokenFailure"),))
    said: list[str] = []
    async with store(environ={}, notify=said.append) as orchestrator:
        result = await drained(orchestrator, orders(images(3)))
    (stop,) = result.blocked
    assert stop.scope is Scope.CREDENTIAL
    lent = [word for key in cloud.lent for word in (key.secret_key, key.token or "")]
    kept = (tmp_path / "orchestrator.db").read_bytes()
    assert lent
    assert not [word for word in lent if word in " ".join(said) or word.encode() in kept]
