"""The same variations in real time: two processes on one store, one of them killed and replaced."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio

from orchestrator.orchestrator import Orchestrator
from orchestrator.settings import load_settings
from orchestrator.simulator import Settings, Simulator, SimulatorOptions
from tests.cli_process import CommandResult, Shell, wait_until

from .variation_run import (
    IMAGES,
    Observation,
    Outcome,
    Variation,
    judge,
    read_details,
    reasons_of,
    words_of,
)

_SHORTER = 25.0
"""Exports take 6 s instead of 2.5 minutes; all other times of the vendor shrink with them. Times in
HTTP have whole seconds, so much shorter exports could not be dated."""

_KILL_AFTER = 15
"""ExportImages requests after which one of the two processes is killed."""

_KILL_BEFORE = 20.0
"""Seconds after which it is killed even if there were fewer requests."""

_RUN = ("run", "--time-limit", "150")


def _shortened(settings: Settings) -> Settings:
    duration = settings.duration
    return replace(
        settings,
        duration=replace(duration, seconds=duration.seconds / _SHORTER),
        queue_delay=settings.queue_delay / _SHORTER,
        data_disks_after=settings.data_disks_after / _SHORTER,
    )


async def run_side_by_side(variation: Variation, folder: Path) -> Outcome:
    """Run two processes, kill one with requests in flight, and start a third one."""
    options = SimulatorOptions(settings=_shortened(variation.settings))
    began = anyio.current_time()
    async with Simulator(options) as cloud:
        shell = Shell.for_cloud(
            cloud,
            folder,
            ORCHESTRATOR_RESEND_AFTER="5",
            ORCHESTRATOR_REQUEST_TIMEOUT="5",
            ORCHESTRATOR_EXPORT_DEADLINE="120",
        )
        store = load_settings({"database_url": str(folder / "exports.db")}, {})
        async with Orchestrator(settings=store) as orchestrator:
            await orchestrator.enqueue(variation.requests(), batch="b")
        heard = await _two_processes(shell, cloud)
        if variation.retries:
            await shell.run("retry", "--all")
            heard += await _two_processes(shell, cloud)
        async with Orchestrator(settings=store) as orchestrator:
            details = await read_details(orchestrator)
        requests = sum(entry.service == "cos" for entry in cloud.ledger)
        exports = list(cloud.exports)
    sentences = [(0.0, line) for one in heard for line in _words(one)]
    return Outcome(
        variation=variation,
        harm=judge(Observation(options.settings.skew, exports, details, sentences)),
        states=Counter(one.job.state.value for one in details),
        exit_code=max(one.code for one in heard),
        seconds=anyio.current_time() - began,
        has_ended=all(one.code != 10 for one in heard),
        cos_requests=requests / IMAGES,
        exports=len(exports),
        sentences=tuple(dict.fromkeys(text for _, text in sentences)),
        last_words=words_of(details),
        reasons=reasons_of(details),
    )


async def _two_processes(shell: Shell, cloud: Simulator) -> list[CommandResult]:
    """Run two processes, kill one of them, and start a third one in its place.

    Returns:
        The results of the processes that were not killed.
    """
    heard: list[CommandResult] = []
    goal = _requests(cloud) + _KILL_AFTER

    async def run() -> None:
        heard.append(await shell.run(*_RUN))

    async with anyio.create_task_group() as tasks:
        async with shell.start(*_RUN) as victim:
            tasks.start_soon(run)
            with anyio.move_on_after(_KILL_BEFORE):
                await wait_until(lambda: victim.returncode is not None or _requests(cloud) >= goal)
            with suppress(ProcessLookupError):  # it may have ended by itself
                victim.kill()
        tasks.start_soon(run)
    return heard


def _requests(cloud: Simulator) -> int:
    return sum(entry.action == "ExportImages" for entry in cloud.ledger)


def _words(one: CommandResult) -> Iterator[str]:
    """Yield the lines that a command printed, except locations, progress and counts.

    The locations are those of the store and of the keys.
    """
    for line in one.err.splitlines():
        if not line.startswith(("Database: ", "Keys: ")) and " done (" not in line:
            yield line
    yield from one.out.splitlines()[1:]
