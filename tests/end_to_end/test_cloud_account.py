"""Whose keys a profile has: kept at its first run, and never changed unnoticed."""

from pathlib import Path

import pytest

from orchestrator.cli.exit_codes import exit_code_for
from orchestrator.errors import CredentialError
from orchestrator.job_states import JobState
from orchestrator.simulator import DEFAULT_KEY, Key, Refusal, Settings, Simulator, SimulatorOptions
from tests.end_to_end.harness import (
    OpenStore,
    enqueue_and_run,
    make_credential_variables,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    read_ledger,
    run_to_end,
)

pytestmark = pytest.mark.anyio

OTHER = Key("AKIDother", "secret-of-another", "100000000002")


async def test_the_keys_of_another_account_stop_the_run(tmp_path: Path, anyio_backend: str) -> None:
    """Before anything is sent; the message names both accounts, and the exit code is 6."""
    settings = Settings(cap=None, limits={})
    options = SimulatorOptions(settings=settings, keys=(DEFAULT_KEY, OTHER))
    async with Simulator(options) as cloud:
        async with make_orchestrator(cloud.url, tmp_path) as orchestrator:
            await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
        sent = len(read_ledger(cloud))
        environ = make_credential_variables(OTHER)
        async with make_orchestrator(cloud.url, tmp_path, environ=environ) as orchestrator:
            with pytest.raises(CredentialError) as caught:
                await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1, first=1)))
        async with make_orchestrator(
            cloud.url, tmp_path, environ=environ, profile="other"
        ) as orchestrator:
            result = await enqueue_and_run(
                orchestrator, make_requests_for(make_image_ids(1, first=2))
            )
    assert DEFAULT_KEY.account in str(caught.value)
    assert OTHER.account in str(caught.value)
    assert exit_code_for(caught.value) == 6
    assert len(read_ledger(cloud)) == sent + 1
    assert result.counts[JobState.VERIFIED] == 1


@pytest.mark.parametrize("code", ["InvalidAction", "InternalError", "AuthFailure.SignatureFailure"])
async def test_where_sts_does_not_tell_the_run_goes_on(
    open_store: OpenStore, cloud: Simulator, code: str
) -> None:
    """An STS that refuses, or knows no such action, holds nothing up."""
    cloud.change(codes=(Refusal(code, action="GetCallerIdentity"),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    assert result.counts[JobState.VERIFIED] == 2


async def test_where_nobody_listens_the_run_goes_on(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An STS that cannot be reached holds nothing up, and is asked again by the next run."""
    async with open_store(sts_endpoint="http://127.0.0.1:9") as orchestrator:
        assert (await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))).counts[
            JobState.VERIFIED
        ] == 2
    assert not read_ledger(cloud, "GetCallerIdentity")
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1, first=2)))
    assert len(read_ledger(cloud, "GetCallerIdentity")) == 1


async def test_it_is_asked_once_a_run(open_store: OpenStore, cloud: Simulator) -> None:
    """Once at the start of a run that has work, and not at all without any."""
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(5)))
        assert len(read_ledger(cloud, "GetCallerIdentity")) == 1
        await run_to_end(orchestrator)
    assert len(read_ledger(cloud, "GetCallerIdentity")) == 1
