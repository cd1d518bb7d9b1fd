"""``orchestrator enqueue``: add jobs from a manifest or from options."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.formatting import fault_lines, to_json, utc_and_local
from orchestrator.cli.options import PROFILE, Json, option, replaces, takes_settings
from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.wording import plural

if TYPE_CHECKING:
    from orchestrator.job_queue.enqueue import EnqueueResult
    from orchestrator.manifest.request_collector import Flags, Manifest
    from orchestrator.settings import Settings


_DEFAULTS = (
    option("region", str, "Region of image and bucket.", envvar="TENCENTCLOUD_REGION"),
    option("bucket", str, "Bucket name with APPID."),
    option("format", str, "RAW (default), QCOW2, VHD or VMDK."),
    option("prefix", str, "Prefix of the object keys."),
    option("only_root_disk", bool, "Do not export data disks."),
    option("role_name", str, "CAM role that writes to the bucket (CVM_QcsRole)."),
    option("priority", int, "Higher is sent first; 0 by default."),
    option("not_before", str, "Do not send before TIME (ISO 8601).", "TIME"),
)
"""What fills in the columns that a row leaves out."""


@takes_settings(PROFILE)
@replaces("defaults", _DEFAULTS, dict)
def command(
    *,
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|-]", help="CSV, JSON or a list of ids; - is stdin."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="ID", help="Image to export; repeatable.")
    ] = None,
    defaults: dict[str, Any],
    batch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the batch; default: generated.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Enqueue the valid rows; ignore unknown columns.")
    ] = False,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Encoding of FILE, such as gb18030; default: UTF-8."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Enqueue duplicates too.")] = False,
    exact_names: Annotated[
        bool,
        typer.Option(
            "--exact-names", help="No job tag in the object keys; then nothing is resent."
        ),
    ] = False,
    json: Json = False,
    settings: "Settings",
) -> None:
    """Add images to the queue; skip requests that are already there.

    Example: orchestrator enqueue images.csv --batch tonight
    """
    from orchestrator.database_url import describe_url
    from orchestrator.orchestrator import Orchestrator

    # read before the event loop runs: it would handle the first Ctrl-C only after the last row
    flags = {**defaults, "exact_names": exact_names}
    try:
        manifest = _read(file, image or [], flags, skip_invalid=skip_invalid, encoding=encoding)
    except ManifestError as error:
        if json:
            nothing = {"batch": batch, "added": 0, "duplicates": 0, "invalid": error.invalid}
            print(to_json({**nothing, "faults": _faults_as_json(error.faults)}))
        raise

    async def add() -> "EnqueueResult":
        async with Orchestrator(settings=settings) as orchestrator:
            return await orchestrator.enqueue(manifest.requests, batch=batch, again=again)

    result = anyio.run(add)
    for line in _notes(manifest, result):
        print(line, file=sys.stderr)
    if json:
        counts = {"added": result.added, "duplicates": result.duplicates}
        faults = {"faults": _faults_as_json(manifest.faults)} if manifest.faults else {}
        print(to_json({"batch": result.batch, **counts, "invalid": manifest.invalid, **faults}))
        return
    duplicates = plural(result.duplicates, "duplicate")
    print(f"Batch {result.batch}: {result.added} added, {duplicates}, {manifest.invalid} invalid.")
    if result.duplicates:
        print("Duplicates were skipped; use --again to enqueue them too.", file=sys.stderr)
    print(f"Database: {describe_url(settings.sqlalchemy_url)}", file=sys.stderr)


def _faults_as_json(faults: Sequence[RowFault]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(fault) for fault in faults]


def _notes(manifest: "Manifest", result: "EnqueueResult") -> Iterator[str]:
    """Yield what a person should know of a manifest that was enqueued."""
    from orchestrator.manifest.problems import listed

    for line in fault_lines(manifest.faults):
        yield f"Skipped: {line}"
    if names := manifest.ignored_columns:
        yield f"Ignored unknown columns: {listed(names)}"
    yield from (f"Note: {note}" for note in manifest.notes)
    moments = [request.not_before for request in manifest.requests if request.not_before]
    if moments and result.added:
        yield _first_departure(min(moments), len(moments))


def _first_departure(first: datetime, count: int) -> str:
    """Return a sentence that says when the first job with ``not_before`` may be sent.

    It gives the time in UTC and in the local time.
    """
    past = ", which is past" if first <= datetime.now(UTC) else ""
    return (
        f"not_before is given for {count}: the first may be sent at {utc_and_local(first)}{past}. "
        "A time without an offset is in UTC."
    )


def _read(
    file: str | None,
    images: list[str],
    flags: "Flags",
    *,
    skip_invalid: bool,
    encoding: str | None,
) -> "Manifest":
    from orchestrator.manifest.request_reader import read_manifest, requests_from_images

    if file is not None and images:
        raise UsageError("A manifest and --image cannot be combined.", "Use only one of them.")
    if file is None and not images:
        raise UsageError(
            "Nothing to enqueue: give either a manifest or images.",
            "For example: orchestrator enqueue images.csv, or --image img-xxxxxxxx.",
        )
    if file is None:
        return requests_from_images(images, flags, skip_invalid=skip_invalid)
    if file == "-":
        return read_manifest(
            sys.stdin.buffer, "stdin", flags, skip_invalid=skip_invalid, encoding=encoding
        )
    try:
        with Path(file).open("rb") as stream:
            return read_manifest(stream, file, flags, skip_invalid=skip_invalid, encoding=encoding)
    except OSError as error:
        raise UsageError(
            f"The manifest {file} cannot be read: {error.strerror}.", "Check the path."
        ) from error
