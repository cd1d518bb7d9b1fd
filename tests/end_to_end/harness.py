"""Helpers of the end-to-end tests: requests, an orchestrator, and the cloud's ledger."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from orchestrator.job_states import JobState
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import JobFilter
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.history import Job
from orchestrator.reporting.run_summary import RunResult
from orchestrator.settings import load_settings
from orchestrator.simulator import DEFAULT_KEY, Entry, Key, Simulator

REGION = "ap-singapore"
BUCKET = "backup-1250000000"

MAX_WAIT = 60.0
"""Maximum wait in seconds. Only a run that hangs takes this long, on a busy machine too."""

OpenStore = Callable[..., Orchestrator]
"""Opens the test's store; each call can have other settings."""


def make_image_ids(count: int, first: int = 0) -> list[str]:
    """Make this many well-formed image ids."""
    return [f"img-{number:08d}" for number in range(first, first + count)]


def make_requests_for(image_ids: Iterable[str], **fields: Any) -> list[ExportRequest]:
    """Make one request for each image."""
    where = {"region": REGION, "bucket": BUCKET}
    return [ExportRequest((image_id,), **{**where, **fields}) for image_id in image_ids]


def make_multi_image_request(image_ids: Iterable[str], **fields: Any) -> ExportRequest:
    """Make one request for all the images together."""
    return replace(make_requests_for(["img-00000000"], **fields)[0], image_ids=tuple(image_ids))


def make_credential_variables(key: Key = DEFAULT_KEY) -> dict[str, str]:
    """Make the environment variables that hold a key."""
    named = {"TENCENTCLOUD_SECRET_ID": key.secret_id, "TENCENTCLOUD_SECRET_KEY": key.secret_key}
    return named if key.token is None else {**named, "TENCENTCLOUD_TOKEN": key.token}


def make_orchestrator(
    url: str,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    notify: Callable[[str], None] = lambda _sentence: None,
    **settings: object,
) -> Orchestrator:
    """Make an orchestrator for the cloud at a URL; all waits are shortened.

    Args:
        notify: takes the sentences for the user, but for the one about the origin of the keys.
    """

    def notify_of_events(sentence: str) -> None:
        if not sentence.startswith("Keys: "):
            notify(sentence)

    short = {
        "database_url": str(folder / "orchestrator.db"),
        "cvm_endpoint": url,
        "cos_endpoint": url,
        "sts_endpoint": url,
        "metadata_endpoint": url,
        "rate": 0,
        "verify_interval": 0.2,
        "request_timeout": 30,
        "resend_after": 1,
        "concurrency": 16,
    }
    return Orchestrator(
        settings=load_settings({**short, **settings}, {}),
        environ={
            "HOME": str(folder),
            **(make_credential_variables() if environ is None else environ),
        },
        notify=notify_of_events,
    )


async def enqueue_and_run(
    orchestrator: Orchestrator, requests: Iterable[ExportRequest], **run: Any
) -> RunResult:
    """Enqueue requests and run; the run must end by itself."""
    await orchestrator.enqueue(requests)
    return await run_to_end(orchestrator, **run)


async def run_to_end(orchestrator: Orchestrator, **run: Any) -> RunResult:
    """Run and return the result; the run must end by itself."""
    with anyio.fail_after(2 * MAX_WAIT):
        return await orchestrator.run(**run)


async def run_and_change(
    orchestrator: Orchestrator,
    enough: Callable[[], bool],
    change: Callable[[], object],
    **run: Any,
) -> RunResult:
    """Run, make a change as soon as a condition holds, and return the result."""
    ended: list[RunResult] = []

    async def work() -> None:
        ended.append(await run_to_end(orchestrator, **run))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await wait_until(enough)
        change()
    return ended[0]


async def run_and_stop_when(orchestrator: Orchestrator, enough: Callable[[], bool]) -> RunResult:
    """Run, request a stop as soon as a condition holds, and return the result."""
    stop = anyio.Event()
    return await run_and_change(orchestrator, enough, stop.set, stop=stop)


async def read_jobs(orchestrator: Orchestrator, **wanted: Any) -> list[Job]:
    """Return the jobs that match a filter, oldest first."""
    found = [job async for job in orchestrator.history(JobFilter(**wanted))]
    return sorted(found, key=lambda job: job.id)


async def count_states(orchestrator: Orchestrator, **wanted: Any) -> Counter[JobState]:
    """Return the number of jobs in each state."""
    return Counter(job.state for job in await read_jobs(orchestrator, **wanted))


async def count_event_kinds(orchestrator: Orchestrator) -> Counter[str]:
    """Count the events of all jobs by kind."""
    stories = [await orchestrator.show(str(job.id)) for job in await read_jobs(orchestrator)]
    return Counter(event["kind"] for story in stories if story for event in story.events)


def read_ledger(cloud: Simulator, action: str = "ExportImages") -> list[Entry]:
    """Return the ledger's entries of one action, in order."""
    return [entry for entry in cloud.ledger if entry.action == action]


def count_exports(cloud: Simulator) -> Counter[str]:
    """Return how often an export of each image really began, by the ledger."""
    return Counter(
        image_id for entry in read_ledger(cloud) if entry.accepted for image_id in entry.image_ids
    )


def once_each(image_ids: Iterable[str]) -> Counter[str]:
    """Return what `count_exports` returns if each image was exported exactly once."""
    return Counter(image_ids)


async def wait_until_stored(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition on the store holds."""
    with anyio.fail_after(MAX_WAIT):
        while not await holds():
            await anyio.sleep(0.02)


async def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    with anyio.fail_after(MAX_WAIT):
        while not holds():
            await anyio.sleep(0.005)


def print_fault_row(
    name: str, said: Iterable[str], exits: int, result: RunResult, cloud: Simulator
) -> None:
    """Print a table row: the fault, what the user sees, and what the ledger says."""
    began = count_exports(cloud)
    states = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    heard = " / ".join(said) or "nothing"
    twice = sum(times > 1 for times in began.values())
    ledger = f"{len(began)} began, {twice} twice, {len(read_ledger(cloud))} requests"
    print(f"\n| {name} | {heard} | {states}; exit {exits} | {ledger} |")  # noqa: T201 - the matrix
