"""Options that several commands share, and how they become settings and filters."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.standard_streams import use_utf8

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.settings import Settings

Json = Annotated[bool, typer.Option("--json", callback=use_utf8, help="Print JSON.")]
Batch = Annotated[
    str | None, typer.Option("--batch", metavar="NAME", help="Only this batch; no wildcard.")
]

_Command = Callable[..., Any]


def option(
    name: str,
    kind: Any,
    text: str,
    metavar: str | None = None,
    *,
    default: object = None,
    envvar: str | None = None,
) -> inspect.Parameter:
    """Return a command-line option as a function parameter for Typer.

    Args:
        kind: type of its values.
        text: its help.
    """
    flag = f"--{name.replace('_', '-')}"
    info = typer.Option(default, flag, help=text, metavar=metavar, envvar=envvar)
    annotation = kind | None if default is None else kind
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation
    )


PROFILE = option("profile", str, "Credentials profile to use.", "NAME")

_SETTINGS_OF_ALL = (
    option("database_url", str, "Database to use: a file or a SQLAlchemy URL.", "URL|PATH"),
    option("config", Path, "Read settings from this TOML file.", "FILE"),
)

FILTERS = (
    option("batch", list[str], "Filter by batch.", "NAME"),
    option("state", list[str], "Filter by state.", "STATE"),
    option("region", list[str], "Filter by region.", "REGION"),
    option("bucket", list[str], "Filter by bucket.", "BUCKET"),
    option("image", list[str], "Filter by image.", "ID"),
    option("task_id", list[str], "Filter by Tencent Cloud TaskId.", "ID"),
    option("code", list[str], "Filter by error code.", "CODE"),
    option("since", str, "Enqueued at or after TIME (ISO 8601).", "TIME"),
    option("until", str, "Enqueued before TIME (ISO 8601).", "TIME"),
    option("job", list[str], "Filter by job id or tag.", "JOB"),
)


def takes_settings(*options: inspect.Parameter) -> Callable[[_Command], _Command]:
    """Decorate a command: pass it the effective settings as ``settings``.

    Args:
        options: further options for settings, besides --database-url and --config.
    """
    return replaces("settings", (*options, *_SETTINGS_OF_ALL), _settings)


def lists_nothing_without_store(command: _Command) -> _Command:
    """Decorate an ``async`` list command: print a note if the store is missing.

    A missing store is not an error for such a command.
    """

    @functools.wraps(command)
    async def with_note(**values: Any) -> None:
        from orchestrator.errors import NoStoreError

        try:
            await command(**values)
        except NoStoreError as missing:
            print(missing, file=sys.stderr)

    return with_note


def replaces(
    name: str, options: Sequence[inspect.Parameter], make: Callable[..., object]
) -> Callable[[_Command], _Command]:
    """Decorate a command: replace its parameter ``name`` by several options.

    ``make`` turns the values of the options into the value of the parameter. Typer reads a
    command's options from its signature, so the options must be in it. An ``async`` command runs in
    an event loop.
    """

    def decorate(command: _Command) -> _Command:
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for own in inspect.signature(command).parameters.values()
            for parameter in (options if own.name == name else (own,))
        ]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            given = {option.name: values.pop(option.name) for option in options}
            call = functools.partial(command, **{name: make(**given)}, **values)
            if inspect.iscoroutinefunction(command):
                anyio.run(call)
            else:
                call()

        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        vars(with_options)["__signature__"] = inspect.Signature(parameters)
        return with_options

    return decorate


def _settings(**flags: object) -> "Settings":
    """Return the effective settings; warn about unknown ORCHESTRATOR_ variables.

    Args:
        flags: values given on the command line; ``None`` means not given.

    Raises:
        UsageError: a value is invalid; the message says where it came from.
    """
    from orchestrator.settings import load_settings, unknown_variables

    for note in unknown_variables(os.environ):
        print(f"Warning: {note}", file=sys.stderr)
    return load_settings(flags, os.environ)


def job_filter(*, since: str | None, until: str | None, **values: list[str] | None) -> "JobFilter":
    """Return the filter that the options describe.

    Raises:
        UsageError: an unknown state or an invalid timestamp.
    """
    from orchestrator.errors import UsageError
    from orchestrator.job_states import JobState
    from orchestrator.manifest.column_rules import not_before
    from orchestrator.manifest.problems import Problem
    from orchestrator.model import JobFilter

    for state in values["state"] or ():
        if "*" not in state and state not in set(JobState):
            raise UsageError(
                f"--state: {state!r} is not a valid state.", f"Use one of: {', '.join(JobState)}."
            )
    fields: dict[str, Any] = {
        f"{name}es" if name == "batch" else f"{name}s": tuple(value or ())
        for name, value in values.items()
    }
    for name, text in (("since", since), ("until", until)):
        fields[name] = None if text is None else not_before(text)
        if isinstance(fields[name], Problem):
            raise UsageError(
                f"--{name}: {text!r} is not a valid timestamp.",
                "Write it like 2026-11-23 or 2026-11-23T18:30:00Z.",
            )
    return JobFilter(**fields)
