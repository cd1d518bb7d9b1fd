"""The commands `resolve`, `retry` and `cancel`."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.simulator import (
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    Simulator,
)
from tests.cli_process import Shell

pytestmark = pytest.mark.anyio

BUCKET = "backup-1250000000"
WHERE = ("--region", "ap-singapore", "--bucket", BUCKET)
IMAGE = "img-00000001"


@pytest.fixture
def shell(cloud: Simulator, tmp_path: Path) -> Shell:
    """Return a shell for the simulated cloud with an export deadline of one second."""
    return Shell.for_cloud(cloud, tmp_path, ORCHESTRATOR_EXPORT_DEADLINE="1")


@pytest.fixture
async def unknown(shell: Shell, cloud: Simulator) -> Shell:
    """Return a shell with one unknown job.

    The response of the job was lost, and verification is off.
    """
    cloud.set_faults(Fault("reset", action="ExportImages", after=True, times=1))
    without_verify = replace(shell, variables={**shell.variables, "ORCHESTRATOR_VERIFY": "off"})
    await without_verify.run("enqueue", "--image", IMAGE, *WHERE)
    assert (await without_verify.run("run")).code == 4
    return without_verify


async def test_show_says_what_to_check_for_an_unknown_job(unknown: Shell) -> None:
    """It names the key prefix and the command that resolves the job."""
    shown = (await unknown.run("show", "1")).out
    tag = (await unknown.run("show", "1", "--json")).json["tag"]
    assert f"key prefix {tag!r}" in shown
    assert "orchestrator resolve 1 --as accepted|absent" in shown


async def test_a_job_that_no_run_resends_waits_for_an_operator(
    shell: Shell, cloud: Simulator
) -> None:
    """A run ends only after it has recorded why an unknown job is not resent.

    Then no command says that the job will be resent.
    """
    cloud.set_faults(Fault("reset", action="ExportImages", times=1))
    shell = replace(shell, variables={**shell.variables, "ORCHESTRATOR_RESEND_AFTER": "1"})
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    ended = await shell.run("run")
    assert ended.code == 4
    assert "orchestrator history --state unknown, then orchestrator show JOB" in ended.out
    shown = (await shell.run("show", "1")).out
    assert "unknown (absence not proven)" in shown
    assert "sends it again" not in shown
    assert f"others whose key contains {IMAGE}: they may belong to it" in shown
    assert "the unknown jobs wait for an operator" in " ".join(
        (await shell.run("status")).out.split()
    )
    assert (await shell.run("run")).code == 4
    assert [one.action for one in cloud.ledger].count("ExportImages") == 1


async def test_a_job_resolved_as_accepted_is_not_sent_again(
    unknown: Shell, cloud: Simulator
) -> None:
    """The run exits with 0, and the job's events name the operator and the reason."""
    ended = await unknown.run("resolve", "1", "--as", "accepted", "--why", "seen in the console")
    assert ended.code == 0
    assert ended.out.startswith("Job 1 is now accepted; `orchestrator run` waits for its objects")
    assert "at most the export_deadline (1 s here)" in ended.out
    assert (await unknown.run("run")).code == 0
    shown = (await unknown.run("show", "1", "--json")).json
    event = next(event for event in shown["events"] if event["kind"] == "resolved")
    assert shown["state"] == "accepted"
    assert event["details"] == {"as": "accepted", "why": "seen in the console"}
    assert "@" in event["actor"]
    assert sum(entry.accepted for entry in cloud.ledger) == 1


async def test_a_job_resolved_as_absent_is_sent_again(unknown: Shell, cloud: Simulator) -> None:
    """The next run sends it once more, without a look-up in the bucket."""
    ended = await unknown.run("resolve", "1", "--as", "absent", "--why", "nothing there")
    assert ended.out == "Job 1 is queued again; `orchestrator run` sends it.\n"
    cloud.change(images={IMAGE: ImageSettings(state="NORMAL")})
    assert (await unknown.run("run")).code == 0
    assert sum(entry.action == "ExportImages" for entry in cloud.ledger) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resolve", "9", "--as", "absent", "--why", "x"), "No such job"),
        (("resolve", "1", "--as", "absent", "--why", "x"), "Job 1 is queued, not unknown"),
        (("resolve", "1", "--as", "absent", "--why", " "), "--why is empty"),
        (("resolve", "1", "--as", "gone", "--why", "x"), "'gone' is not a verdict."),
        (("resolve", "1", "--as", "absent"), "Missing option '--why'"),
        (("settle", "1", "--as", "absent", "--why", "x"), "is now `orchestrator resolve JOB"),
        (("retry",), "No filter given"),
        (("retry", "--state", "lost"), "is not a valid state"),
        (("cancel",), "No filter given"),
    ],
)
async def test_an_invalid_operation_exits_with_2(shell: Shell, words: list[str], said: str) -> None:
    """The message says what is wrong, and there is no traceback."""
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    ended = await shell.run(*words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "words", [("retry", "--job", "9"), ("cancel", "--batch", "another"), ("cancel", "--dry-run")]
)
async def test_a_filter_that_matches_nothing_is_no_error(
    shell: Shell, words: tuple[str, ...]
) -> None:
    """The command says so; scripts may run it again after everything was done."""
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    ended = await shell.run(*words, *(("--image", "img-none") if "--dry-run" in words else ()))
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("No job matches.")


async def test_retry_previews_and_then_retries_a_failed_job(shell: Shell, cloud: Simulator) -> None:
    """A dry run only counts; a retry after the cause is fixed exports the image."""
    cloud.change(images={IMAGE: ImageSettings(missing=True)})
    await shell.run("enqueue", "--image", IMAGE, "--image", "img-00000002", *WHERE)
    assert (await shell.run("run")).code == 3
    preview = await shell.run("retry", "--all", "--dry-run")
    assert preview.code == 0
    assert "2 jobs match" in preview.out
    assert "1 back to the queue" in preview.out
    assert "1 skipped" in preview.out
    assert (await shell.run("run")).code == 0
    cloud.change(images={})
    done = await shell.run("retry", "--state", "failed")
    assert done.out == "1 job will be retried by `orchestrator run`.\n"
    ended = await shell.run("run", "--json")
    assert (ended.code, ended.json["verified"]) == (0, 2)


async def test_a_cancelled_job_does_not_block_a_run(shell: Shell, cloud: Simulator) -> None:
    """A job of an invalid region halts the run until the job is cancelled.

    Then the run exits with 0.
    """
    wrong = ("--region", "ap-nowhere", "--bucket", BUCKET)
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    await shell.run("enqueue", "--image", "img-00000002", *wrong)
    stopped = await shell.run("run")
    assert stopped.code == 6
    assert "1 job left: fix the above and run again" in stopped.out
    preview = await shell.run("cancel", "--all", "--dry-run")
    assert preview.out == ("2 jobs match.\n  1 queued: cancel.\n  1 skipped: not queued.\n")
    done = await shell.run("cancel", "--region", "ap-nowhere")
    assert done.out == "1 job cancelled. Use `orchestrator retry` to undo this.\n"
    ended = await shell.run("run", "--json")
    assert (ended.code, ended.json["verified"], ended.json["cancelled"]) == (0, 0, 0)
    assert (await shell.run("status", "--json")).json["cancelled"] == 1
    assert sum(entry.accepted for entry in cloud.ledger) == 1


async def test_retry_of_an_undelivered_export_searches_the_bucket_first(
    shell: Shell, cloud: Simulator
) -> None:
    """An object that arrived after the deadline is found, and nothing is sent again."""
    cloud.change(duration=Duration(seconds=600))
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    assert (await shell.run("run")).code == 3
    cloud.change(skew=601)
    tried = await shell.run("retry", "--code", "Orchestrator.NotDelivered")
    assert "1 to be searched in the bucket first" in tried.err
    assert (await shell.run("run")).code == 0
    assert sum(entry.action == "ExportImages" for entry in cloud.ledger) == 1


async def test_retry_of_a_partial_delivery_exports_only_the_missing_images(
    shell: Shell, cloud: Simulator
) -> None:
    """The missing image of three becomes a new job, and only once."""
    three = [f"img-0000000{number}" for number in (1, 2, 3)]
    cloud.change(deliveries=(Delivery("never", images=(three[1],)),))
    row = f"image_ids,region,bucket\n{';'.join(three)},ap-singapore,{BUCKET}\n"
    await shell.run("enqueue", "-", stdin=row.encode())
    assert (await shell.run("run")).code == 3
    cloud.change(deliveries=())
    tried = await shell.run("retry", "--state", "failed")
    assert "1 delivered in part" in tried.err
    ended = await shell.run("run", "--json", "--resend-after", "1")
    assert ended.json["verified"] == 1
    assert ended.json["requests"] == 1
    newest, oldest = (await shell.run("history", "--json")).rows
    assert (newest["image_ids"], newest["state"]) == ([three[1]], "verified")
    assert oldest["batch"] == newest["batch"]
    again = await shell.run("retry", "--job", "1")
    assert (again.code, again.out) == (0, "")
    assert "1 skipped" in again.err
