"""The cloud account of a profile is stored at its first run and never changes unnoticed."""

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


async def test_keys_of_another_account_end_the_run(tmp_path: Path, anyio_backend: str) -> None:
    """A run with the keys of another account sends nothing and exits with code 6.

    The message names both accounts.
    """
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
    assert "come from TENCENTCLOUD_SECRET_ID" in str(caught.value)
    assert exit_code_for(caught.value) == 6
    assert len(read_ledger(cloud)) == sent + 1
    assert result.counts[JobState.VERIFIED] == 1


@pytest.mark.parametrize("code", ["InvalidAction", "InternalError", "AuthFailure.SignatureFailure"])
async def test_run_continues_if_sts_refuses(
    open_store: OpenStore, cloud: Simulator, code: str
) -> None:
    """An STS that refuses, or does not know the action, does not stop the run."""
    cloud.change(codes=(Refusal(code, action="GetCallerIdentity"),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    assert result.counts[JobState.VERIFIED] == 2


async def test_run_continues_if_sts_is_unreachable(open_store: OpenStore, cloud: Simulator) -> None:
    """An unreachable STS does not stop the run, and the next run asks again."""
    async with open_store(sts_endpoint="http://127.0.0.1:9") as orchestrator:
        assert (await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))).counts[
            JobState.VERIFIED
        ] == 2
    assert not read_ledger(cloud, "GetCallerIdentity")
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1, first=2)))
    assert len(read_ledger(cloud, "GetCallerIdentity")) == 1


async def test_account_is_checked_once_per_run(open_store: OpenStore, cloud: Simulator) -> None:
    """STS is asked once at the start of a run with work, and not at all without work."""
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(5)))
        assert len(read_ledger(cloud, "GetCallerIdentity")) == 1
        await run_to_end(orchestrator)
    assert len(read_ledger(cloud, "GetCallerIdentity")) == 1
