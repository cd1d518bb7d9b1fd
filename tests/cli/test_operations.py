"""What a person decides at the terminal: `settle` an unknown job, `retry` or `cancel` others."""

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
    """A shell set up for that cloud."""
    return Shell.for_cloud(cloud, tmp_path, ORCHESTRATOR_EXPORT_DEADLINE="1")


@pytest.fixture
async def unknown(shell: Shell, cloud: Simulator) -> Shell:
    """A shell whose one job is unknown: its answer was lost, and nobody looks into the bucket."""
    cloud.set_faults(Fault("reset", action="ExportImages", after=True, times=1))
    looks_off = replace(shell, variables={**shell.variables, "ORCHESTRATOR_VERIFY": "off"})
    await looks_off.run("enqueue", "--image", IMAGE, *WHERE)
    assert (await looks_off.run("run")).code == 4
    return looks_off


async def test_show_tells_what_to_check_of_an_unknown_job(unknown: Shell) -> None:
    """Where the bucket may not be read, a person learns where to look, and how to say it."""
    told = (await unknown.run("show", "1")).out
    tag = (await unknown.run("show", "1", "--json")).json["tag"]
    assert f"names begin with {tag!r}" in told
    assert "orchestrator settle 1 --as accepted|absent" in told


async def test_settled_as_accepted_a_job_rests_and_the_run_ends_well(
    unknown: Shell, cloud: Simulator
) -> None:
    """Nothing is sent again; who said so, and why, stands in the job's events."""
    ended = await unknown.run("settle", "1", "--as", "accepted", "--why", "seen in the console")
    assert (ended.code, ended.out) == (0, "Job 1 is accepted.\n")
    assert (await unknown.run("run")).code == 0
    shown = (await unknown.run("show", "1", "--json")).json
    event = next(event for event in shown["events"] if event["kind"] == "settled")
    assert shown["state"] == "accepted"
    assert event["details"] == {"as": "accepted", "why": "seen in the console"}
    assert "@" in event["actor"]
    assert sum(entry.accepted for entry in cloud.ledger) == 1


async def test_settled_as_absent_a_job_is_sent_again(unknown: Shell, cloud: Simulator) -> None:
    """On a person's word it goes out once more, without a look that nobody may take."""
    ended = await unknown.run("settle", "1", "--as", "absent", "--why", "nothing there")
    assert ended.out == "Job 1 is queued again; `orchestrator run` sends it.\n"
    cloud.change(images={IMAGE: ImageSettings(state="NORMAL")})
    assert (await unknown.run("run")).code == 0
    assert sum(entry.action == "ExportImages" for entry in cloud.ledger) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("settle", "9", "--as", "absent", "--why", "x"), "no such job"),
        (("settle", "1", "--as", "absent", "--why", "x"), "Job 1 is queued, not unknown"),
        (("settle", "1", "--as", "absent", "--why", " "), "--why is empty"),
        (("settle", "1", "--as", "gone", "--why", "x"), "'accepted', 'absent'"),
        (("settle", "1", "--as", "absent"), "Missing option '--why'"),
        (("retry",), "No filter is given"),
        (("retry", "--state", "lost"), "no such state"),
        (("retry", "--job", "9"), "No job matches"),
        (("cancel",), "No filter is given"),
        (("cancel", "--batch", "another"), "No job matches"),
    ],
)
async def test_what_cannot_be_decided_is_told(shell: Shell, words: list[str], said: str) -> None:
    """A mistake ends with 2 and a sentence, and changes nothing."""
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    ended = await shell.run(*words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


async def test_a_retry_says_first_what_becomes_of_the_jobs(shell: Shell, cloud: Simulator) -> None:
    """A dry run counts and changes nothing; then the failed job is mended and goes through."""
    cloud.change(images={IMAGE: ImageSettings(missing=True)})
    await shell.run("enqueue", "--image", IMAGE, "--image", "img-00000002", *WHERE)
    assert (await shell.run("run")).code == 3
    preview = await shell.run("retry", "--all", "--dry-run")
    assert preview.code == 0
    assert "2 jobs match" in preview.out
    assert "1 back to the queue" in preview.out
    assert "1 left alone" in preview.out
    assert (await shell.run("run")).code == 0
    cloud.change(images={})
    done = await shell.run("retry", "--state", "failed")
    assert done.out == "1 job tried again; `orchestrator run` goes on with them.\n"
    ended = await shell.run("run", "--json")
    assert (ended.code, ended.json["verified"]) == (0, 2)


async def test_a_job_that_is_given_up_holds_up_no_run(shell: Shell, cloud: Simulator) -> None:
    """A region that is none stops its jobs; cancelled, they are out of the way and well told."""
    wrong = ("--region", "ap-singpore", "--bucket", BUCKET)
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    await shell.run("enqueue", "--image", "img-00000002", *wrong)
    stopped = await shell.run("run")
    assert stopped.code == 6
    assert "1 job left: mend that and run again" in stopped.out
    preview = await shell.run("cancel", "--all", "--dry-run")
    assert preview.out == (
        "2 jobs match.\n  1 in the queue: cancelled.\n  1 left alone: sent already, or ended.\n"
    )
    done = await shell.run("cancel", "--region", "ap-singpore")
    assert done.out == "1 job cancelled; `orchestrator retry` takes them up again.\n"
    ended = await shell.run("run", "--json")
    assert (ended.code, ended.json["verified"], ended.json["cancelled"]) == (0, 0, 0)
    assert (await shell.run("status", "--json")).json["cancelled"] == 1
    assert sum(entry.accepted for entry in cloud.ledger) == 1


async def test_a_retry_of_what_never_arrived_looks_first(shell: Shell, cloud: Simulator) -> None:
    """An object that came after the deadline is found by the retry: nothing is sent again."""
    cloud.change(duration=Duration(seconds=600))
    await shell.run("enqueue", "--image", IMAGE, *WHERE)
    assert (await shell.run("run")).code == 3
    cloud.change(skew=601)
    tried = await shell.run("retry", "--code", "Orchestrator.NotDelivered")
    assert "1 to be looked for first" in tried.err
    assert (await shell.run("run")).code == 0
    assert sum(entry.action == "ExportImages" for entry in cloud.ledger) == 1


async def test_a_retry_of_a_part_exports_the_missing_images_alone(
    shell: Shell, cloud: Simulator
) -> None:
    """Of three images in one request the lost one becomes a job of its own, once."""
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
    assert "1 left alone" in again.err
