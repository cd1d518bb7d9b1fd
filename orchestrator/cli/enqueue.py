"""``orchestrator enqueue``: a manifest or single images become jobs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.formatting import to_json
from orchestrator.cli.options import Config, DatabaseUrl, Json, Profile, settings_from
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.job_queue.enqueue import EnqueueResult
    from orchestrator.manifest.reader import Defaults, Manifest
    from orchestrator.settings import Settings


def command(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|-]", help="CSV or JSON Lines; - reads stdin."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="ID", help="An image; may be repeated.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(envvar="TENCENTCLOUD_REGION", help="Where image and bucket are.")
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Bucket name with its APPID.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="RAW (default), QCOW2, VHD or VMDK.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Leads the objects' names.")] = None,
    only_root_disk: Annotated[
        bool, typer.Option("--only-root-disk", help="Leave the data disks out.")
    ] = False,
    role_name: Annotated[
        str | None, typer.Option(help="CVM role that writes to the bucket (CVM_QcsRole).")
    ] = None,
    priority: Annotated[int, typer.Option(help="Larger goes first.")] = 0,
    not_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not sent earlier (ISO 8601).")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="NAME", help="A name for this lot; one is made up.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Take the good rows and leave the others.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what is already there or done.")
    ] = False,
    exact_names: Annotated[
        bool,
        typer.Option(
            "--exact-names", help="No tag in the names; then nothing is sent again by itself."
        ),
    ] = False,
    json: Json = False,
    profile: Profile = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Add images to the queue; the same request again is a duplicate, not a second job."""
    from orchestrator.manifest.reader import Defaults

    settings = settings_from(config=config, database_url=database_url, profile=profile)
    defaults = Defaults(
        region=region,
        bucket=bucket,
        format=format_,
        prefix=prefix,
        only_root_disk=only_root_disk,
        role_name=role_name,
        priority=priority,
        not_before=not_before,
        exact_names=exact_names,
    )
    manifest = _read(file, image or [], defaults, skip_invalid=skip_invalid)
    result = anyio.run(_enqueue, settings, manifest, batch, again)
    _report(manifest, result, settings, json=json)


def _read(
    file: str | None, images: list[str], defaults: "Defaults", *, skip_invalid: bool
) -> "Manifest":
    from orchestrator.manifest.reader import read_manifest, requests_from_images

    if file is not None and images:
        raise UsageError("A manifest and --image exclude each other.", "Leave one of them out.")
    if file is None and not images:
        raise UsageError(
            "Name what to export: either a manifest or images.",
            "For example: orchestrator enqueue images.csv, or --image img-xxxxxxxx.",
        )
    if file is None:
        return requests_from_images(images, defaults, skip_invalid=skip_invalid)
    if file == "-":
        return read_manifest(sys.stdin.buffer, "stdin", defaults, skip_invalid=skip_invalid)
    try:
        with Path(file).open("rb") as stream:
            return read_manifest(stream, file, defaults, skip_invalid=skip_invalid)
    except OSError as error:
        raise UsageError(
            f"The manifest {file} cannot be read: {error.strerror}.", "Name another file."
        ) from error


async def _enqueue(
    settings: "Settings", manifest: "Manifest", batch: str | None, again: bool
) -> "EnqueueResult":
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings) as orchestrator:
        return await orchestrator.enqueue(manifest.requests, batch=batch, again=again)


def _report(
    manifest: "Manifest", result: "EnqueueResult", settings: "Settings", *, json: bool
) -> None:
    from orchestrator.store import describe_url

    for fault in manifest.faults:
        print(f"Left out: {fault}", file=sys.stderr)
    if manifest.ignored_columns:
        print(f"Ignored columns: {', '.join(manifest.ignored_columns)}", file=sys.stderr)
    found = {"added": result.added, "duplicates": result.duplicates}
    counts = {**found, "invalid": manifest.invalid}
    if json:
        print(to_json({"batch": result.batch, **counts}))
        return
    said = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"Batch {result.batch}: {said}.")
    if result.duplicates:
        print("Duplicates stay as they were, in their batch; --again adds them.", file=sys.stderr)
    print(f"Store: {describe_url(settings.sqlalchemy_url)}", file=sys.stderr)
