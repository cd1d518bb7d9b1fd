"""Keys that move while a run is under way: withdrawn, revoked, or not to be had any more."""

import logging
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import CredentialError
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.simulator import DEFAULT_KEY, Duration, Fault, Refusal, Simulator
from tests.command import Result, Shell
from tests.end_to_end.scene import (
    Store,
    accepted,
    images,
    jobs_of,
    keys_of,
    once_each,
    orders,
    ran,
    ran_until,
    requests,
    states_of,
    until,
)

pytestmark = pytest.mark.anyio

ROLE = {"TENCENTCLOUD_ROLE_ARN": "qcs::cam::uin/100000000001:roleName/exporter"}
BATCH = images(24)


def kept_in(folder: Path) -> bytes:
    """All that stands in the files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_token_that_is_withdrawn_is_fetched_anew_once(
    store: Store, cloud: Simulator
) -> None:
    """Eight requests in the air and more behind them: one fetch, no attempt spent, no stop."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.1))
    async with store(environ={**keys_of(), **ROLE}, concurrency=8) as orchestrator:
        await orchestrator.enqueue(orders(BATCH))
        result = await ran_until(
            orchestrator,
            lambda: accepted(cloud).total() >= 8,
            lambda: cloud.change(withdrawn=(cloud.lent[0].secret_id,)),
        )
        assert {job.attempts for job in await jobs_of(orchestrator)} == {1}
    assert result.blocked == ()
    assert result.counts[JobState.VERIFIED] == len(BATCH)
    assert accepted(cloud) == once_each(BATCH)
    assert len(requests(cloud, "AssumeRole")) == 2
    refused = [entry for entry in requests(cloud) if entry.code is not None]
    assert {entry.code for entry in refused} == {"AuthFailure.TokenFailure"}
    assert len(refused) <= 2 * 8


async def test_a_token_that_is_withdrawn_while_only_looks_are_made(
    store: Store, cloud: Simulator
) -> None:
    """COS calls it expired: the keys are fetched anew once, and every export is seen to end."""
    cloud.change(duration=Duration(seconds=1.5))
    async with store(environ={**keys_of(), **ROLE}) as orchestrator:
        await orchestrator.enqueue(orders(images(12)))
        result = await ran_until(
            orchestrator,
            lambda: accepted(cloud).total() == 12,
            lambda: cloud.change(withdrawn=(cloud.lent[0].secret_id,)),
        )
    assert result.counts[JobState.VERIFIED] == 12
    assert result.blocked == ()
    assert len(requests(cloud, "AssumeRole")) == 2


async def test_keys_that_are_revoked_for_good(
    store: Store, cloud: Simulator, tmp_path: Path
) -> None:
    """The run ends with 6 and says what to do, every job rests; other keys finish the night."""
    file = str(tmp_path / "orchestrator.db")
    variables = {**ROLE, "ORCHESTRATOR_DATABASE_URL": file}
    shell = Shell.towards(cloud, tmp_path, DEFAULT_KEY, **variables)
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.2))
    ended: list[Result] = []

    async def run() -> None:
        ended.append(await shell.run("run", "--concurrency", "4", "--json"))

    async with store() as orchestrator:
        await orchestrator.enqueue(orders(BATCH))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: accepted(cloud).total() >= 6)
            cloud.change(revoked=(DEFAULT_KEY.secret_id, cloud.lent[0].secret_id))
        (result,) = ended
        assert result.code == 6, result.err
        assert "key exists and is enabled" in result.err
        counts = result.json
        assert counts["verified"] + counts["accepted"] + counts["queued"] == len(BATCH)
        assert counts["queued"] >= len(BATCH) - 6 - 2 * 4
        cloud.change(revoked=())
        again = await ran(orchestrator)
    assert (again.counts[JobState.VERIFIED], again.blocked) == (len(BATCH), ())
    assert accepted(cloud) == once_each(BATCH)


async def test_a_lender_that_breaks_down_under_way(store: Store, cloud: Simulator) -> None:
    """What is held serves to its end; then the run says what is wrong, and nothing is lost."""
    cloud.change(instance_role="exporter", lent_for=4, cap=4, duration=Duration(seconds=200))
    said: list[str] = []
    async with store(environ={}, notify=said.append) as orchestrator:
        await orchestrator.enqueue(orders(images(10)))
        result = await ran_until(
            orchestrator,
            lambda: accepted(cloud).total() == 4,
            lambda: cloud.set_faults(Fault("html", action="metadata")),
        )
        (stop,) = result.blocked
        assert (stop.scope, stop.code) == (Scope.CREDENTIAL, "Client.NoCredentials")
        assert "metadata service" in stop.message
        assert sum("cannot be renewed" in sentence for sentence in said) == 1
        assert await states_of(orchestrator) == {JobState.ACCEPTED: 4, JobState.QUEUED: 6}
        cloud.set_faults()
        cloud.change(lent_for=0, skew=210, duration=Duration(seconds=0.2))
        assert (await ran(orchestrator)).counts[JobState.VERIFIED] == 10
    assert accepted(cloud) == once_each(images(10))


async def test_no_secret_of_a_role_is_kept_or_said(
    store: Store, cloud: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the keys that a role is assumed with nor those lent stand in a file or a message."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with store(environ={**keys_of(), **ROLE}, notify=said.append) as orchestrator:
        await orchestrator.enqueue(orders(images(1)))
        for code in ("AuthFailure.TokenFailure", "AuthFailure.SecretIdNotFound"):
            cloud.change(codes=(Refusal(code, action="cvm"),))
            (stop,) = (await ran(orchestrator)).blocked
            assert stop.code == code
        cloud.change(codes=(Refusal("InternalError", action="sts"),))
        with pytest.raises(CredentialError, match="InternalError") as caught:
            await ran(orchestrator)
        cloud.change(codes=())
        assert (await ran(orchestrator)).counts[JobState.VERIFIED] == 1
        kept = kept_in(tmp_path)
    secrets = [DEFAULT_KEY.secret_key]
    for lent in cloud.lent:
        secrets += [lent.secret_key, lent.token or ""]
    assert len(secrets) >= 7
    assert b"img-00000000" in kept
    told = "".join((*said, caplog.text, str(caught.value))).encode()
    assert b"aiosqlite" in told  # the libraries did log
    assert not [secret for secret in secrets if secret.encode() in told + kept]
