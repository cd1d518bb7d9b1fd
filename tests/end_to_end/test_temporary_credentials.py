"""Runs with the temporary credentials of a role."""

from pathlib import Path

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.simulator import Duration, Refusal, Simulator
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_ledger,
)

pytestmark = pytest.mark.anyio


def count_fetches(cloud: Simulator) -> int:
    """Return how often the credentials of the instance role were fetched."""
    return len(read_ledger(cloud, "GetRoleCredentials")) // 2


async def test_credentials_are_refreshed_before_they_expire(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Over several lifetimes of the credentials no request is refused."""
    cloud.change(instance_role="exporter", lent_for=6, duration=Duration(seconds=9))
    async with open_store(environ={}) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(10)))
    assert result.counts[JobState.VERIFIED] == 10
    assert count_exports(cloud) == once_each(make_image_ids(10))
    assert count_fetches(cloud) >= 2
    assert {entry.code for entry in cloud.ledger} <= {None, "NoSuchKey"}


async def test_refused_token_is_refreshed_once(open_store: OpenStore, cloud: Simulator) -> None:
    """Refused credentials are fetched again once, however many requests used them."""
    refused = Refusal("AuthFailure.TokenFailure", times=4)
    cloud.change(instance_role="exporter", codes=(refused,))
    async with open_store(environ={}, concurrency=4) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(12)))
    assert result.counts[JobState.VERIFIED] == 12
    assert count_exports(cloud) == once_each(make_image_ids(12))
    assert count_fetches(cloud) == 2


async def test_temporary_credentials_are_never_stored_or_printed(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path
) -> None:
    """Neither the store nor a message contains a temporary key or token."""
    cloud.change(instance_role="exporter", codes=(Refusal("AuthFailure.TokenFailure"),))
    said: list[str] = []
    async with open_store(environ={}, notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
    (stop,) = result.blocked
    assert stop.scope is Scope.CREDENTIAL
    lent = [word for key in cloud.temporary_keys for word in (key.secret_key, key.token or "")]
    kept = (tmp_path / "orchestrator.db").read_bytes()
    assert lent
    assert not [word for word in lent if word in " ".join(said) or word.encode() in kept]
