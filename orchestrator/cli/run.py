"""``orchestrator run``: drains the queue."""

import gc
import resource
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.exit_codes import exit_code_for
from orchestrator.cli.formatting import to_json
from orchestrator.cli.options import Batch, Config, DatabaseUrl, Json, Profile, settings_from
from orchestrator.cli.run_outcome import as_json, exit_code, print_result, summary
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.reporting.run_summary import RunResult
    from orchestrator.settings import Settings

_A_YEAR = 365 * 86_400.0
_OTHER_FILES = 64
"""Files that a run may have open beside its connections to CVM: buckets, store, libraries."""

_OBJECTS_A_COLLECTION = 10_000
"""A request makes hundreds of objects and hardly a cycle: to look for these as often as Python does
by itself takes a twentieth of a run."""

_FEWEST_FILES = 40
"""With fewer it might wait for files that it holds itself."""

_SIGNALLED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def command(
    batch: Batch = None,
    time_limit: Annotated[
        float | None,
        typer.Option(min=0, max=_A_YEAR, metavar="S", help="Send nothing more after S seconds."),
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Wait for more jobs instead of ending.")
    ] = False,
    json: Json = False,
    rate: Annotated[float | None, typer.Option(help="Requests a second; 0 is no limit.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at once.")] = None,
    verify: Annotated[str | None, typer.Option(help="auto, required or off.")] = None,
    verify_interval: Annotated[
        str | None,
        typer.Option(metavar="S", help="Seconds between looks at an export, or adaptive."),
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds for one request in all.")
    ] = None,
    resend_after: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Seconds of empty look-ups before an unknown job is sent again."
        ),
    ] = None,
    resend: Annotated[
        str | None,
        typer.Option(help="proven, always or never: when an unknown job is sent again by itself."),
    ] = None,
    quota_wait: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds to wait for a quota other than the export cap."),
    ] = None,
    export_deadline: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds an accepted export may take.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts before a job fails.")] = None,
    site: Annotated[str | None, typer.Option(help="intl or mainland.")] = None,
    allow_plain_http: Annotated[
        bool | None,
        typer.Option("--allow-plain-http", help="Permit http:// endpoints beyond this machine."),
    ] = None,
    cvm_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="CVM's address.")] = None,
    cos_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="COS's address.")] = None,
    sts_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="STS's address, for a role to assume.")
    ] = None,
    metadata_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Where an instance asks for its role's keys.")
    ] = None,
    profile: Profile = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Send, wait and verify until nothing can move; resumes what an earlier run left.

    Exit codes: 0 all ended well, or nothing to do; 3 some failed; 4 some are unknown; 5 work is
    left; 10 time limit; 6 a person must act; 2 unusable input; 1 internal fault; 130 or 143
    interrupted: work is safe, run again.
    """
    settings = settings_from(
        rate=rate,
        concurrency=concurrency,
        verify=verify,
        verify_interval=verify_interval,
        request_timeout=request_timeout,
        resend_after=resend_after,
        resend=resend,
        quota_wait=quota_wait,
        allow_plain_http=allow_plain_http,
        export_deadline=export_deadline,
        max_attempts=max_attempts,
        site=site,
        cvm_endpoint=cvm_endpoint,
        cos_endpoint=cos_endpoint,
        sts_endpoint=sts_endpoint,
        metadata_endpoint=metadata_endpoint,
        profile=profile,
        database_url=database_url,
        config=config,
    )
    sys.exit(anyio.run(_run, settings, batch, time_limit, forever, json))


async def _run(
    settings: "Settings", batch: str | None, time_limit: float | None, forever: bool, json: bool
) -> int:
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.store import describe_url

    display = ProgressDisplay(batch)
    display.notify(f"Store: {describe_url(settings.sqlalchemy_url)}")
    _ask_for_files(settings.concurrency + _OTHER_FILES, display)
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    result, signalled = await drain(
        settings, display, batch=batch, time_limit=time_limit, forever=forever
    )
    if result is not None:
        print_result(to_json(as_json(result)) if json else "\n".join(summary(result, batch)))
    if signalled is not None:
        return _SIGNALLED[signalled]
    return exit_code(result) if result is not None else 1


def _ask_for_files(needed: int, display: "ProgressDisplay") -> None:
    """Lets this process have so many files open; where the system does not, says so.

    Raises:
        UsageError: too few for any run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    may_have = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if resource.RLIM_INFINITY != soft < may_have:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may_have, hard))
    if may_have < _FEWEST_FILES:
        raise UsageError(
            f"This process may have {may_have} files open; a run needs {_FEWEST_FILES} at least.",
            f"Raise the limit: ulimit -n {needed}.",
        )
    if may_have < needed:
        display.notify(
            f"This process may have {may_have} files open and may need {needed}: raise the limit "
            f"(ulimit -n {needed}) or lower --concurrency if it gets into trouble."
        )


async def drain(
    settings: "Settings", display: "ProgressDisplay", **how: Any
) -> "tuple[RunResult | None, signal.Signals | None]":
    """Runs under the display; returns the result, none when it was torn, and the signal if any.

    The first signal lets the requests in the air finish; the second ends the run at once. What
    goes wrong after a signal is said, and leaves the signal's exit code.
    """
    stop = anyio.Event()
    signalled: list[signal.Signals] = []
    try:
        result = await _drain(settings, display, stop, signalled, **how)
    except Exception as error:
        if not signalled:
            raise
        exit_code_for(error)
        result = None
    return result, (signalled[0] if signalled else None)


async def _drain(
    settings: "Settings",
    display: "ProgressDisplay",
    stop: anyio.Event,
    signalled: list[signal.Signals],
    **how: Any,
) -> "RunResult | None":
    from orchestrator.orchestrator import Orchestrator

    result: RunResult | None = None
    async with (
        Orchestrator(settings=settings, notify=display.notify) as orchestrator,
        anyio.create_task_group() as tasks,
    ):

        async def listen() -> None:
            with anyio.open_signal_receiver(*_SIGNALLED) as received:
                async for number in received:
                    signalled.append(number)
                    if stop.is_set():
                        tasks.cancel_scope.cancel()
                    display.notify(_STOPPING if not stop.is_set() else _TORN)
                    stop.set()

        tasks.start_soon(listen)
        async with display.follow(orchestrator):
            result = await orchestrator.run(stop=stop, **how)
        tasks.cancel_scope.cancel()
    return result


_STOPPING = (
    "Stopping: nothing more is sent; requests in the air are waited for. Again to stop at once."
)
_TORN = "Stopped at once: what was in the air is looked up by the next run."
