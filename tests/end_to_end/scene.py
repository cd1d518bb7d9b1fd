"""What the scenes of the flow are made of: orders, a store over a cloud, and its ledger's truth."""

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

Store = Callable[..., Orchestrator]
"""Opens one store, each time with settings of its own."""


def images(count: int, first: int = 0) -> list[str]:
    """So many image ids, each well formed."""
    return [f"img-{number:08d}" for number in range(first, first + count)]


def orders(image_ids: Iterable[str], **fields: Any) -> list[ExportRequest]:
    """One request for each image."""
    where = {"region": REGION, "bucket": BUCKET}
    return [ExportRequest((image_id,), **{**where, **fields}) for image_id in image_ids]


def together(image_ids: Iterable[str], **fields: Any) -> ExportRequest:
    """One request for all the images."""
    return replace(orders(["img-00000000"], **fields)[0], image_ids=tuple(image_ids))


def keys_of(key: Key = DEFAULT_KEY) -> dict[str, str]:
    """The environment that holds a key."""
    named = {"TENCENTCLOUD_SECRET_ID": key.secret_id, "TENCENTCLOUD_SECRET_KEY": key.secret_key}
    return named if key.token is None else {**named, "TENCENTCLOUD_TOKEN": key.token}


def orchestrator_at(
    url: str,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    notify: Callable[[str], None] = lambda _sentence: None,
    **settings: object,
) -> Orchestrator:
    """A store in a folder over the cloud at a URL, with everything that waits cut short."""
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
        environ={"HOME": str(folder), **(keys_of() if environ is None else environ)},
        notify=notify,
    )


async def drained(
    orchestrator: Orchestrator, requests: Iterable[ExportRequest], **run: Any
) -> RunResult:
    """What came of enqueueing and running, which must come to an end by itself."""
    await orchestrator.enqueue(requests)
    return await ran(orchestrator, **run)


async def ran(orchestrator: Orchestrator, **run: Any) -> RunResult:
    """What came of a run, which must come to an end by itself."""
    with anyio.fail_after(2 * MAX_WAIT):
        return await orchestrator.run(**run)


async def ran_until(
    orchestrator: Orchestrator,
    enough: Callable[[], bool],
    change: Callable[[], object],
    **run: Any,
) -> RunResult:
    """Run, make one change as soon as a condition holds, and return the result."""
    ended: list[RunResult] = []

    async def work() -> None:
        ended.append(await ran(orchestrator, **run))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await until(enough)
        change()
    return ended[0]


async def run_and_stop_when(orchestrator: Orchestrator, enough: Callable[[], bool]) -> RunResult:
    """Run, request a stop as soon as a condition holds, and return the result."""
    stop = anyio.Event()
    return await ran_until(orchestrator, enough, stop.set, stop=stop)


async def jobs_of(orchestrator: Orchestrator, **wanted: Any) -> list[Job]:
    """The jobs that a filter lets through, oldest first."""
    found = [job async for job in orchestrator.history(JobFilter(**wanted))]
    return sorted(found, key=lambda job: job.id)


async def states_of(orchestrator: Orchestrator, **wanted: Any) -> Counter[JobState]:
    """How many jobs are in which state."""
    return Counter(job.state for job in await jobs_of(orchestrator, **wanted))


def requests(cloud: Simulator, action: str = "ExportImages") -> list[Entry]:
    """What arrived of one action, in order."""
    return [entry for entry in cloud.ledger if entry.action == action]


def accepted(cloud: Simulator) -> Counter[str]:
    """How often an export of each image really began, whatever came back of it."""
    return Counter(
        image_id for entry in requests(cloud) if entry.accepted for image_id in entry.image_ids
    )


def once_each(image_ids: Iterable[str]) -> Counter[str]:
    """What `accepted` is when all went well."""
    return Counter(image_ids)


async def until_kept(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns when a condition on the store holds."""
    with anyio.fail_after(MAX_WAIT):
        while not await holds():
            await anyio.sleep(0.02)


async def until(holds: Callable[[], bool]) -> None:
    """Returns when a condition holds."""
    with anyio.fail_after(MAX_WAIT):
        while not holds():
            await anyio.sleep(0.005)


def print_row(
    name: str, said: Iterable[str], exits: int, result: RunResult, cloud: Simulator
) -> None:
    """One row of what goes wrong: the fault, what the user sees, what the ledger says."""
    began = accepted(cloud)
    states = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    heard = " / ".join(said) or "nothing"
    twice = sum(times > 1 for times in began.values())
    ledger = f"{len(began)} began, {twice} twice, {len(requests(cloud))} requests"
    print(f"\n| {name} | {heard} | {states}; exit {exits} | {ledger} |")  # noqa: T201 - the matrix
