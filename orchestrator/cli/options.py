"""Options that several commands share, and how they become settings."""

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
    typer.Option("--config", metavar="FILE", help="TOML file with settings.", show_default=False),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url", metavar="URL|PATH", help="Where the store is.", show_default=False
    ),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="The account's name.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="NAME", help="Only this batch.", show_default=False),
]

_Values = list[str] | None


def _filter(
    batch: Annotated[_Values, typer.Option(metavar="NAME", help="Of this batch.")] = None,
    state: Annotated[_Values, typer.Option(metavar="STATE", help="In this state.")] = None,
    region: Annotated[_Values, typer.Option(metavar="REGION", help="In this region.")] = None,
    bucket: Annotated[_Values, typer.Option(metavar="BUCKET", help="To this bucket.")] = None,
    image: Annotated[_Values, typer.Option(metavar="ID", help="Of this image.")] = None,
    task_id: Annotated[
        _Values, typer.Option(metavar="ID", help="With the vendor's TaskId.")
    ] = None,
    code: Annotated[_Values, typer.Option(metavar="CODE", help="With this code.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Enqueued then or later (ISO 8601).")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Enqueued before then (ISO 8601).")
    ] = None,
    job: Annotated[_Values, typer.Option(metavar="JOB", help="With this number or tag.")] = None,
) -> "JobFilter":
    """The filter that the options describe.

    Raises:
        UsageError: a state or a time that is none.
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
        since=_moment("--since", since),
        until=_moment("--until", until),
    )


def takes_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that describe a filter of jobs; it gets them as `wanted`."""
    describing = inspect.signature(_filter, eval_str=False).parameters
    own = inspect.signature(command).parameters

    @functools.wraps(command)
    def with_filter(**values: Any) -> None:
        wanted = _filter(**{name: values.pop(name) for name in describing})
        command(wanted, **values)

    rest = [parameter for name, parameter in own.items() if name != "wanted"]
    parameters = [*describing.values(), *rest]
    with_filter.__annotations__ = {p.name: p.annotation for p in parameters}
    vars(with_filter)["__signature__"] = inspect.Signature(parameters)
    return with_filter


def settings_from(**flags: Any) -> "Settings":
    """The settings in force, flags first; a variable that is no setting is pointed out.

    Raises:
        UsageError: a value that cannot be used, with where it came from.
    """
    from orchestrator.settings import load_settings, unknown_variables

    for note in unknown_variables(os.environ):
        print(f"Note: {note}", file=sys.stderr)
    return load_settings(flags, os.environ)


def _check_state(name: str) -> None:
    from orchestrator.errors import UsageError
    from orchestrator.job_states import JobState

    if "*" not in name and name not in set(JobState):
        raise UsageError(
            f"--state {name}: there is no such state.", f"It is one of {', '.join(JobState)}."
        )


def _moment(option: str, text: str | None) -> Any:
    from datetime import UTC, datetime

    from orchestrator.errors import UsageError

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text}: this is no time.", "Write it as 2026-11-23 or 2026-11-23T18:30:00Z."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
