"""``orchestrator enqueue``: add jobs from a manifest or from options."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from orchestrator.cli.formatting import to_json
from orchestrator.cli.options import PROFILE, Json, option, replaces, takes_settings
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.job_queue.enqueue import EnqueueResult
    from orchestrator.manifest.request_reader import Flags, Manifest
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
        typer.Argument(metavar="[FILE|-]", help="CSV, JSON Lines or a JSON array; - is stdin."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="ID", help="Image to export; repeatable.")
    ] = None,
    defaults: dict[str, Any],
    batch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the batch; default: generated.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Enqueue only the valid rows.")
    ] = False,
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
    """Add images to the queue. A request that is already there is a duplicate and is skipped.

    Example: orchestrator enqueue images.csv --batch tonight
    """
    from orchestrator.database_url import describe_url
    from orchestrator.orchestrator import Orchestrator

    # read before the event loop runs: it would handle the first Ctrl-C only after the last row
    flags = {**defaults, "exact_names": exact_names}
    manifest = _read(file, image or [], flags, skip_invalid=skip_invalid)

    async def add() -> "EnqueueResult":
        async with Orchestrator(settings=settings) as orchestrator:
            return await orchestrator.enqueue(manifest.requests, batch=batch, again=again)

    result = anyio.run(add)
    for fault in manifest.faults:
        print(f"Skipped: {fault}", file=sys.stderr)
    if manifest.ignored_columns:
        print(f"Ignored columns: {', '.join(manifest.ignored_columns)}", file=sys.stderr)
    counts = {
        "added": result.added,
        "duplicates": result.duplicates,
        "invalid": manifest.invalid,
    }
    if json:
        print(to_json({"batch": result.batch, **counts}))
        return
    print(f"Batch {result.batch}: {', '.join(f'{n} {name}' for name, n in counts.items())}.")
    if result.duplicates:
        print("Duplicates were skipped; use --again to enqueue them too.", file=sys.stderr)
    print(f"Database: {describe_url(settings.sqlalchemy_url)}", file=sys.stderr)


def _read(file: str | None, images: list[str], flags: "Flags", *, skip_invalid: bool) -> "Manifest":
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
        return read_manifest(sys.stdin.buffer, "stdin", flags, skip_invalid=skip_invalid)
    try:
        with Path(file).open("rb") as stream:
            return read_manifest(stream, file, flags, skip_invalid=skip_invalid)
    except OSError as error:
        raise UsageError(
            f"The manifest {file} cannot be read: {error.strerror}.", "Check the path."
        ) from error
