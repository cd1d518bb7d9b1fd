"""``orchestrator run``: send, wait and verify until the queue is empty."""

import gc
import resource
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.exit_codes import INTERNAL, exit_code_for
from orchestrator.cli.formatting import to_json
from orchestrator.cli.options import Batch, Config, DatabaseUrl, Json, Profile, settings_from
from orchestrator.cli.run_result import as_json, exit_code, print_result, summary
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.reporting.run_summary import RunResult
    from orchestrator.settings import Settings

_YEAR_SECONDS = 365 * 86_400.0

_OTHER_FILES = 64
"""Open files besides the connections to CVM: connections to COS, the database, libraries."""

_MIN_FILES = 40
"""With fewer open files a run could wait for files that it holds itself."""

_GC_THRESHOLD = 10_000
"""Allocations between garbage collections. A request makes hundreds of objects, but hardly a
reference cycle; with Python's default a run spends a twentieth of its time on collections."""

_SIGNAL_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit codes, as shells number them."""


def command(
    batch: Batch = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0, max=_YEAR_SECONDS, metavar="S", help="Send nothing more after S seconds."
        ),
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Wait for new jobs instead of exiting.")
    ] = False,
    json: Json = False,
    rate: Annotated[float | None, typer.Option(help="Requests per second; 0 is no limit.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Maximum requests in flight.")] = None,
    verify: Annotated[
        str | None, typer.Option(help="Verify exports in the bucket: auto, required or off.")
    ] = None,
    verify_interval: Annotated[
        str | None,
        typer.Option(metavar="S", help="Seconds between checks of an export, or adaptive."),
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(metavar="S", help="Timeout of one request.")
    ] = None,
    resend_after: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Seconds of empty look-ups before an unknown job is resent."
        ),
    ] = None,
    resend: Annotated[
        str | None,
        typer.Option(help="When to resend an unknown job: proven, always or never."),
    ] = None,
    quota_wait: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds to wait for a quota other than the export cap."),
    ] = None,
    export_deadline: Annotated[
        float | None, typer.Option(metavar="S", help="Maximum seconds of an accepted export.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts before a job fails.")] = None,
    site: Annotated[str | None, typer.Option(help="Tencent Cloud site: intl or mainland.")] = None,
    allow_plain_http: Annotated[
        bool | None,
        typer.Option("--allow-plain-http", help="Allow http:// endpoints beyond loopback."),
    ] = None,
    cvm_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="CVM endpoint.")] = None,
    cos_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="COS endpoint.")] = None,
    sts_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="STS endpoint.")] = None,
    metadata_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Instance metadata endpoint.")
    ] = None,
    profile: Profile = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Send, wait and verify until no job can progress.

    It continues what an earlier run left.

    Exit codes: 0 success, or nothing to do; 1 internal error; 2 invalid input; 3 some jobs failed;
    4 some are unknown; 5 work is left, run again; 6 action required; 10 time limit reached; 130 or
    143 interrupted, work is safe.

    Example: orchestrator run --batch tonight --time-limit 28800
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
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.store import describe_url

    display = ProgressDisplay(batch)
    display.notify(f"Database: {describe_url(settings.sqlalchemy_url)}")
    _raise_file_limit(settings.concurrency + _OTHER_FILES, display)
    gc.set_threshold(_GC_THRESHOLD)
    result: RunResult | None = None
    stop = _StopOnSignal(display)
    try:
        async with (
            Orchestrator(settings=settings, notify=display.notify) as orchestrator,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(stop.listen, tasks.cancel_scope)
            async with display.follow(orchestrator):
                result = await orchestrator.run(
                    batch=batch, time_limit=time_limit, forever=forever, stop=stop.requested
                )
            tasks.cancel_scope.cancel()
    except Exception as error:
        if stop.signal is None:
            raise
        exit_code_for(error)
    if result is not None:
        print_result(to_json(as_json(result)) if json else "\n".join(summary(result, batch)))
    if stop.signal is not None:
        return _SIGNAL_CODES[stop.signal]
    return exit_code(result) if result is not None else INTERNAL


class _StopOnSignal:
    """Ends a run on SIGINT or SIGTERM: gracefully on the first one, at once on the second.

    Args:
        requested: set by the first signal.
        signal: the first signal; ``None`` before it.
    """

    def __init__(self, display: "ProgressDisplay") -> None:
        self.requested = anyio.Event()
        self.signal: signal.Signals | None = None
        self._display = display

    async def listen(self, scope: anyio.CancelScope) -> None:
        """Wait for signals; cancel the scope on the second one."""
        with anyio.open_signal_receiver(*_SIGNAL_CODES) as received:
            async for number in received:
                if self.signal is not None:
                    self._display.notify(_STOPPED_AT_ONCE)
                    scope.cancel()
                    continue
                self.signal = number
                self._display.notify(_STOPPING)
                self.requested.set()


_STOPPING = (
    "Stopping: nothing more is sent; waiting for requests in flight. Interrupt again to stop at "
    "once."
)
_STOPPED_AT_ONCE = "Stopped at once; the next run looks up the requests that were in flight."


def _raise_file_limit(needed: int, display: "ProgressDisplay") -> None:
    """Raise this process's limit of open files as far as the system permits.

    Raises:
        UsageError: the limit is too low for any run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < _MIN_FILES:
        raise UsageError(
            f"The limit of open files is {allowed}; a run needs at least {_MIN_FILES}.",
            f"Raise it: ulimit -n {needed}.",
        )
    if allowed < needed:
        display.notify(
            f"Warning: the limit of open files is {allowed}, and this run may need {needed}. "
            f"Raise it (ulimit -n {needed}) or lower --concurrency."
        )
