"""Credentials that change during a run: withdrawn, revoked, or no longer available."""

import logging
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import CredentialError
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.simulator import DEFAULT_KEY, Duration, Fault, Refusal, Simulator
from tests.cli_process import CommandResult, Shell
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    count_states,
    make_credential_variables,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_and_change,
    run_to_end,
    wait_until,
)

pytestmark = pytest.mark.anyio

ROLE = {"TENCENTCLOUD_ROLE_ARN": "qcs::cam::uin/100000000001:roleName/exporter"}
BATCH = make_image_ids(24)


def read_all_files(folder: Path) -> bytes:
    """Return the contents of all files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_withdrawn_token_is_fetched_again_once(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A withdrawn token causes one fetch, no charged attempt and no halt.

    Many requests use the token when it is withdrawn.
    """
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.1))
    async with open_store(
        environ={**make_credential_variables(), **ROLE}, concurrency=8
    ) as orchestrator:
        await orchestrator.enqueue(make_requests_for(BATCH))
        result = await run_and_change(
            orchestrator,
            lambda: count_exports(cloud).total() >= 8,
            lambda: cloud.change(withdrawn=(cloud.temporary_keys[0].secret_id,)),
        )
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert result.blocked == ()
    assert result.counts[JobState.VERIFIED] == len(BATCH)
    assert count_exports(cloud) == once_each(BATCH)
    assert len(read_ledger(cloud, "AssumeRole")) == 2
    refused = [entry for entry in read_ledger(cloud) if entry.code is not None]
    assert {entry.code for entry in refused} == {"AuthFailure.TokenFailure"}
    assert len(refused) <= 2 * 8


async def test_withdrawn_token_is_fetched_again_during_lookups(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A token that COS refuses is fetched again once, and all exports are verified."""
    cloud.change(duration=Duration(seconds=1.5))
    async with open_store(environ={**make_credential_variables(), **ROLE}) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))
        result = await run_and_change(
            orchestrator,
            lambda: count_exports(cloud).total() == 12,
            lambda: cloud.change(withdrawn=(cloud.temporary_keys[0].secret_id,)),
        )
    assert result.counts[JobState.VERIFIED] == 12
    assert result.blocked == ()
    assert len(read_ledger(cloud, "AssumeRole")) == 2


async def test_revoked_keys_end_the_run(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path
) -> None:
    """A run whose keys are revoked exits with code 6 and says what to do.

    A later run with valid keys finishes the jobs.
    """
    file = str(tmp_path / "orchestrator.db")
    variables = {**ROLE, "ORCHESTRATOR_DATABASE_URL": file}
    shell = Shell.for_cloud(cloud, tmp_path, DEFAULT_KEY, **variables)
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.2))
    ended: list[CommandResult] = []

    async def run() -> None:
        ended.append(await shell.run("run", "--concurrency", "4", "--json"))

    async with open_store() as orchestrator:
        await orchestrator.enqueue(make_requests_for(BATCH))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await wait_until(lambda: count_exports(cloud).total() >= 6)
            cloud.change(revoked=(DEFAULT_KEY.secret_id, cloud.temporary_keys[0].secret_id))
        (result,) = ended
        assert result.code == 6, result.err
        # which of two refusals comes first depends on the request in flight
        assert "key exists, is enabled" in result.err or "in the CAM console" in result.err
        counts = result.json
        assert counts["verified"] + counts["accepted"] + counts["queued"] == len(BATCH)
        assert counts["queued"] >= len(BATCH) - 6 - 2 * 4
        cloud.change(revoked=())
        again = await run_to_end(orchestrator)
    assert (again.counts[JobState.VERIFIED], again.blocked) == (len(BATCH), ())
    assert count_exports(cloud) == once_each(BATCH)


async def test_failing_credential_source_ends_the_run(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Current credentials are used until they expire; then the run reports the fault."""
    cloud.change(instance_role="exporter", lent_for=4, cap=4, duration=Duration(seconds=200))
    said: list[str] = []
    async with open_store(environ={}, notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(10)))
        result = await run_and_change(
            orchestrator,
            lambda: count_exports(cloud).total() == 4,
            lambda: cloud.set_faults(Fault("html", action="metadata")),
        )
        (stop,) = result.blocked
        assert (stop.scope, stop.code) == (Scope.CREDENTIAL, "Client.NoCredentials")
        assert "metadata service" in stop.message
        assert sum("Cannot renew the credential" in sentence for sentence in said) == 1
        assert await count_states(orchestrator) == {JobState.ACCEPTED: 4, JobState.QUEUED: 6}
        cloud.set_faults()
        cloud.change(lent_for=0, skew=210, duration=Duration(seconds=0.2))
        assert (await run_to_end(orchestrator)).counts[JobState.VERIFIED] == 10
    assert count_exports(cloud) == once_each(make_image_ids(10))


async def test_no_secret_of_a_role_is_stored_or_printed(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No secret key or token of a role appears in a file or a message.

    This covers the keys that assume the role and the temporary keys.
    """
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with open_store(
        environ={**make_credential_variables(), **ROLE}, notify=said.append
    ) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        for code in ("AuthFailure.TokenFailure", "AuthFailure.SecretIdNotFound"):
            cloud.change(codes=(Refusal(code, action="cvm"),))
            (stop,) = (await run_to_end(orchestrator)).blocked
            assert stop.code == code
        cloud.change(codes=(Refusal("InternalError", action="sts"),))
        with pytest.raises(CredentialError, match="InternalError") as caught:
            await run_to_end(orchestrator)
        cloud.change(codes=())
        assert (await run_to_end(orchestrator)).counts[JobState.VERIFIED] == 1
        kept = read_all_files(tmp_path)
    secrets = [DEFAULT_KEY.secret_key]
    for lent in cloud.temporary_keys:
        secrets += [lent.secret_key, lent.token or ""]
    assert len(secrets) >= 7
    assert b"img-00000000" in kept
    told = "".join((*said, caplog.text, str(caught.value))).encode()
    assert b"aiosqlite" in told  # the libraries did log
    assert not [secret for secret in secrets if secret.encode() in told + kept]
