"""Options that several commands share, and how they become settings and filters."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Read settings from this TOML file.", show_default=False
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL|PATH",
        help="Database to use: a file or a SQLAlchemy URL.",
        show_default=False,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="NAME", help="Credentials profile to use.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="NAME", help="Only this batch.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Select all jobs; no filter is needed.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done without doing it.")
]

_Values = list[str] | None


def _job_filter(
    batch: Annotated[_Values, typer.Option(metavar="NAME", help="Filter by batch.")] = None,
    state: Annotated[_Values, typer.Option(metavar="STATE", help="Filter by state.")] = None,
    region: Annotated[_Values, typer.Option(metavar="REGION", help="Filter by region.")] = None,
    bucket: Annotated[_Values, typer.Option(metavar="BUCKET", help="Filter by bucket.")] = None,
    image: Annotated[_Values, typer.Option(metavar="ID", help="Filter by image.")] = None,
    task_id: Annotated[
        _Values, typer.Option(metavar="ID", help="Filter by Tencent Cloud TaskId.")
    ] = None,
    code: Annotated[_Values, typer.Option(metavar="CODE", help="Filter by error code.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Enqueued at or after TIME (ISO 8601).")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Enqueued before TIME (ISO 8601).")
    ] = None,
    job: Annotated[_Values, typer.Option(metavar="JOB", help="Filter by job id or tag.")] = None,
) -> "JobFilter":
    """Return the filter that the options describe.

    Raises:
        UsageError: an unknown state or an invalid timestamp.
    """
    from orchestrator.model import JobFilter

    for name in state or []:
        _check_state(name)
    return JobFilter(
        batches=tuple(batch or ()),
        states=tuple(state or ()),
        regions=tuple(region or ()),
        buckets=tuple(bucket or ()),
        images=tuple(image or ()),
        task_ids=tuple(task_id or ()),
        codes=tuple(code or ()),
        jobs=tuple(job or ()),
        since=_timestamp("--since", since),
        until=_timestamp("--until", until),
    )


def add_filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: give it the filter options, and pass it the filter as ``wanted``.

    Typer reads a command's options from its signature, so the decorated function gets a signature
    that joins both lists of parameters.
    """
    filter_parameters = inspect.signature(_job_filter, eval_str=False).parameters
    own_parameters = inspect.signature(command).parameters

    @functools.wraps(command)
    def with_filter(**values: Any) -> None:
        wanted = _job_filter(**{name: values.pop(name) for name in filter_parameters})
        command(wanted, **values)

    rest = [parameter for name, parameter in own_parameters.items() if name != "wanted"]
    parameters = [*filter_parameters.values(), *rest]
    with_filter.__annotations__ = {p.name: p.annotation for p in parameters}
    vars(with_filter)["__signature__"] = inspect.Signature(parameters)
    return with_filter


def settings_from(**flags: Any) -> "Settings":
    """Return the settings in force; warn about ORCHESTRATOR_ variables that are not settings.

    Args:
        flags: values given on the command line; ``None`` means not given.

    Raises:
        UsageError: a value is invalid; the message says where it came from.
    """
    from orchestrator.settings import load_settings, unknown_variables

    for note in unknown_variables(os.environ):
        print(f"Warning: {note}", file=sys.stderr)
    return load_settings(flags, os.environ)


def _check_state(name: str) -> None:
    from orchestrator.errors import UsageError
    from orchestrator.job_states import JobState

    if "*" not in name and name not in set(JobState):
        raise UsageError(
            f"--state {name}: is not a valid state.", f"Use one of: {', '.join(JobState)}."
        )


def _timestamp(option: str, text: str | None) -> Any:
    from datetime import UTC, datetime

    from orchestrator.errors import UsageError

    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text}: is not a valid timestamp.",
            "Write it like 2026-11-23 or 2026-11-23T18:30:00Z.",
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
