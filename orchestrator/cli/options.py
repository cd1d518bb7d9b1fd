"""Options that several commands share, and how they become settings and filters."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="NAME", help="Only this batch.")]
All = Annotated[bool, typer.Option("--all", help="Select all jobs; no filter is needed.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done without doing it.")
]

Flag = tuple[type, str | None, str]
"""An option that may be left out: type, metavar and help."""

PROFILE: Flag = (str, "NAME", "Credentials profile to use.")

_FLAGS_OF_ALL: dict[str, Flag] = {
    "database_url": (str, "URL|PATH", "Database to use: a file or a SQLAlchemy URL."),
    "config": (Path, "FILE", "Read settings from this TOML file."),
}

_FILTERS = {
    "batch": ("batches", "NAME", "Filter by batch."),
    "state": ("states", "STATE", "Filter by state."),
    "region": ("regions", "REGION", "Filter by region."),
    "bucket": ("buckets", "BUCKET", "Filter by bucket."),
    "image": ("images", "ID", "Filter by image."),
    "task_id": ("task_ids", "ID", "Filter by Tencent Cloud TaskId."),
    "code": ("codes", "CODE", "Filter by error code."),
    "since": ("since", "TIME", "Enqueued at or after TIME (ISO 8601)."),
    "until": ("until", "TIME", "Enqueued before TIME (ISO 8601)."),
    "job": ("jobs", "JOB", "Filter by job id or tag."),
}
"""The filter options: field of `JobFilter`, metavar and help. All but the times are repeatable."""

_TIMES = {"since", "until"}

_Command = Callable[..., None]


def takes_settings(**flags: Flag) -> Callable[[_Command], _Command]:
    """Decorate a command: pass it the settings in force as ``settings``.

    Args:
        flags: settings that the command takes as options, besides database and TOML file.
    """
    options = [_option(name, *flag) for name, flag in {**flags, **_FLAGS_OF_ALL}.items()]
    return functools.partial(_replace_parameter, "settings", options, _settings)


def takes_filter(command: _Command) -> _Command:
    """Decorate a command: give it the filter options, and pass it the filter as ``wanted``."""
    options = [
        _option(name, str if name in _TIMES else list[str], metavar, text)
        for name, (_, metavar, text) in _FILTERS.items()
    ]
    return _replace_parameter("wanted", options, _job_filter, command)


def _option(name: str, kind: Any, metavar: str | None, text: str) -> inspect.Parameter:
    option = typer.Option(None, f"--{name.replace('_', '-')}", metavar=metavar, help=text)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
    )


def _replace_parameter(
    name: str,
    options: Sequence[inspect.Parameter],
    value: Callable[..., object],
    command: _Command,
) -> _Command:
    """Give a command options in place of one parameter, which gets the value made of them.

    Typer reads a command's options from its signature, so the returned function has a signature
    that joins both lists of parameters.
    """
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for own in inspect.signature(command).parameters.values()
        for parameter in (options if own.name == name else (own,))
    ]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        given = {option.name: values.pop(option.name) for option in options}
        command(**{name: value(**given)}, **values)

    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    vars(with_options)["__signature__"] = inspect.Signature(parameters)
    return with_options


def _settings(**flags: object) -> "Settings":
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


def _job_filter(**values: Any) -> "JobFilter":
    """Return the filter that the options describe.

    Raises:
        UsageError: an unknown state or an invalid timestamp.
    """
    from orchestrator.errors import UsageError
    from orchestrator.job_states import JobState
    from orchestrator.model import JobFilter

    for state in values["state"] or ():
        if "*" not in state and state not in set(JobState):
            raise UsageError(
                f"--state {state}: is not a valid state.", f"Use one of: {', '.join(JobState)}."
            )
    fields: dict[str, Any] = {
        _FILTERS[name][0]: _timestamp(name, value) if name in _TIMES else tuple(value)
        for name, value in values.items()
        if value is not None
    }
    return JobFilter(**fields)


def _timestamp(name: str, text: str) -> "datetime":
    from datetime import UTC, datetime

    from orchestrator.errors import UsageError

    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--{name} {text}: is not a valid timestamp.",
            "Write it like 2026-11-23 or 2026-11-23T18:30:00Z.",
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
