"""``orchestrator demo``: the guided first run, against the cloud on loopback."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.formatting import heading_of_jobs, job_line

if TYPE_CHECKING:
    from orchestrator.settings import Settings

_BATCH = "demo"
_SHOWN = 8


def command(
    images: Annotated[int, typer.Option(min=1, help="How many images to export.")] = 200,
) -> None:
    """Export generated images from a simulated cloud, and show what there is to see."""
    sys.exit(anyio.run(_demo, images))


async def _demo(images: int) -> int:
    from orchestrator.cli.progress import ProgressDisplay
    from orchestrator.cli.run import drain
    from orchestrator.cli.run_outcome import exit_code, print_result, summary
    from orchestrator.simulator import DEFAULT_KEY, Duration, Simulator, SimulatorOptions
    from orchestrator.simulator import Settings as CloudSettings

    display = ProgressDisplay(_BATCH)
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    cloud = CloudSettings(cap=24, duration=Duration("uniform", seconds=1.0, spread=0.6))
    options = SimulatorOptions(images=images, ledger=folder / "ledger.jsonl", settings=cloud)
    os.environ["TENCENTCLOUD_SECRET_ID"] = DEFAULT_KEY.secret_id
    os.environ["TENCENTCLOUD_SECRET_KEY"] = DEFAULT_KEY.secret_key
    os.environ.pop("TENCENTCLOUD_TOKEN", None)
    async with Simulator(options) as simulator:
        display.notify(f"A cloud as strict as the vendor's listens on {simulator.url}: 20 requests")
        display.notify("a second, 24 exports at once. Nothing leaves this machine.")
        settings = _settings(simulator.url, folder)
        await _enqueue(settings, [image.image_id for image in simulator.images], display)
        result, signalled = await drain(settings, display, batch=_BATCH)
    if result is not None:
        print_result("\n".join(summary(result)))
        await _show_history(settings)
        _show_next(folder)
    return exit_code(result) if result is not None and signalled is None else 130


def _settings(url: str, folder: Path) -> "Settings":
    from orchestrator.settings import load_settings

    endpoints = dict.fromkeys(("cvm_endpoint", "cos_endpoint", "sts_endpoint"), url)
    flags = {"database_url": str(folder / "demo.db"), **endpoints}
    return load_settings({**flags, "verify_interval": 0.5}, {})


async def _enqueue(settings: "Settings", image_ids: list[str], display: "object") -> None:
    from orchestrator.manifest.export_request import ExportRequest
    from orchestrator.orchestrator import Orchestrator

    requests = [
        ExportRequest((image_id,), "ap-singapore", "demo-1250000000", prefix="nightly")
        for image_id in image_ids
    ]
    async with Orchestrator(settings=settings) as orchestrator:
        result = await orchestrator.enqueue(requests, batch=_BATCH)
    print(f"Batch {result.batch}: {result.added} images enqueued.")


async def _show_history(settings: "Settings") -> None:
    from orchestrator.orchestrator import Orchestrator

    print()
    print(heading_of_jobs())
    async with Orchestrator(settings=settings) as orchestrator:
        async for job in orchestrator.history(limit=_SHOWN):
            print(job_line(job))


def _show_next(folder: Path) -> None:
    store = f"--database-url {folder / 'demo.db'}"
    command = "orchestrator" if shutil.which("orchestrator") else sys.argv[0]
    print(
        f"""
Look further:
  {command} status {store}
  {command} history --state verified --csv {store}
  {command} show 1 {store}
What the cloud saw, request by request: {folder / "ledger.jsonl"}"""
    )
