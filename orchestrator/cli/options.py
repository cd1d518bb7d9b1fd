"""Options that several commands share, and how they become settings."""

import os
import sys
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

Batches = Annotated[
    list[str] | None, typer.Option("--batch", metavar="NAME", help="Of this batch.")
]
States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="In this state.")
]
Regions = Annotated[
    list[str] | None, typer.Option("--region", metavar="REGION", help="In this region.")
]
Buckets = Annotated[
    list[str] | None, typer.Option("--bucket", metavar="BUCKET", help="To this bucket.")
]
Images = Annotated[list[str] | None, typer.Option("--image", metavar="ID", help="Of this image.")]
TaskIds = Annotated[
    list[str] | None, typer.Option("--task-id", metavar="ID", help="With the vendor's TaskId.")
]
Codes = Annotated[list[str] | None, typer.Option("--code", metavar="CODE", help="With this code.")]
Jobs = Annotated[
    list[str] | None, typer.Option("--job", metavar="JOB", help="With this number or tag.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Enqueued then or later (ISO 8601).")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Enqueued before then (ISO 8601).")
]


def settings_from(**flags: Any) -> "Settings":
    """The settings in force, flags first; a variable that is no setting is pointed out.

    Raises:
        UsageError: a value that cannot be used, with where it came from.
    """
    from orchestrator.settings import load_settings, unknown_variables

    for note in unknown_variables(os.environ):
        print(f"Note: {note}", file=sys.stderr)
    return load_settings(flags, os.environ)


def filter_from(
    *,
    since: str | None,
    until: str | None,
    state: list[str] | None,
    **values: list[str] | None,
) -> "JobFilter":
    """The filter that the options describe.

    Raises:
        UsageError: a state or a time that is none.
    """
    from orchestrator.model import JobFilter

    for name in state or []:
        _check_state(name)
    given = {name: tuple(found or ()) for name, found in values.items()}
    return JobFilter(
        **given,
        states=tuple(state or ()),
        since=_moment("--since", since),
        until=_moment("--until", until),
    )


def _check_state(name: str) -> None:
    from orchestrator.errors import UsageError
    from orchestrator.model import JobState

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
