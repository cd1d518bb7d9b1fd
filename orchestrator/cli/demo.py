"""``orchestrator demo``: a guided first run against a simulated cloud.

It runs this program's own commands as processes of their own, kills one of them, and compares the
end with the simulator's ledger.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

if TYPE_CHECKING:
    from orchestrator.reporting.history import Job
    from orchestrator.simulator import Simulator

_REGION, _BUCKET, _BATCH = "ap-singapore", "demo-1250000000", "demo"
_SHOWN_JOBS = 8

_KEPT_VARIABLES = (
    *("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TERM", "COLUMNS", "LINES", "NO_COLOR", "COLORTERM"),
    *("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8"),
)
"""Variables that the commands inherit; proxies, credentials and settings are left out."""


def command(
    images: Annotated[int, typer.Option(min=20, max=200, help="Number of images to export.")] = 200,
) -> None:
    """Show a batch export in a simulated cloud.

    Some images are refused, some responses are lost, and the process is killed on the way. It
    needs no account, sends nothing beyond this machine, and takes less than a minute.

    Example: orchestrator demo --images 50
    """
    sys.exit(anyio.run(_demo, images))


async def _demo(count: int) -> int:
    from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions

    settings = Settings(
        cap=24,
        duration=Duration("uniform", seconds=1.0, spread=0.6),
        # slow enough that some requests are always in flight when the process is killed
        faults=(Fault("latency", action="ExportImages", seconds=0.3),),
    )
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    options = SimulatorOptions(images=count, ledger=folder / "ledger.jsonl", settings=settings)
    code = 1
    async with Simulator(options) as cloud, anyio.create_task_group() as tasks:

        async def cancel_on_signal() -> None:
            nonlocal code
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    code = 128 + number
                    tasks.cancel_scope.cancel()

        tasks.start_soon(cancel_on_signal)
        code = await _Demo(cloud, folder).run()
        tasks.cancel_scope.cancel()
    if code >= 128:
        shutil.rmtree(folder)
    return code


class _Demo:
    """The steps of the demo, in order.

    Args:
        folder: for the manifest, the database and the ledger.
    """

    def __init__(self, cloud: "Simulator", folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        self._database = folder / "demo.db"
        self._images = [image.image_id for image in cloud.images]

    async def run(self) -> int:
        """Run all steps; return the exit code: 0 if no export was lost or made twice."""
        self._prepare_cloud()
        self._write_manifest()
        await self._command("enqueue", "images.csv", "--batch", _BATCH)
        _say("Send, wait and verify. This process will be killed on the way.")
        await self._command("run", "--batch", _BATCH, kill_when=self._is_half_done)
        await self._report_kill()
        _say("Run again: it continues where the killed process stopped.")
        code = await self._command("run", "--batch", _BATCH)
        _say("The newest jobs, and why some failed:")
        await self._command("history", "--limit", str(_SHOWN_JOBS))
        is_exact = await self._report_counts()
        self._suggest_commands()
        return 0 if is_exact and code in {0, 3} else 1

    def _prepare_cloud(self) -> None:
        """Make three images impossible to export, and lose the responses for three others."""
        from orchestrator.simulator import Fault, ImageSettings

        # among the newest jobs, so that the table at the end shows them
        encrypted, market, missing = self._images[-2], self._images[-4], self._images[-6]
        lost = tuple(self._images[:: len(self._images) // 3][:3])
        self._cloud.change(
            images={
                encrypted: ImageSettings(encrypted=True),
                market: ImageSettings(market=True),
                missing: ImageSettings(missing=True),
            },
            faults=(
                *self._cloud.settings.faults,
                Fault("reset", action="ExportImages", after=True, images=lost),
            ),
        )
        _say(
            f"A simulated Tencent Cloud is listening on {self._cloud.url}.",
            "It allows 20 requests per second and 24 exports at a time, refuses 3 of the",
            f"images, and loses {len(lost)} of its responses. Nothing leaves this machine.",
        )

    def _write_manifest(self) -> None:
        rows = [f"{image},{_REGION},{_BUCKET},nightly" for image in self._images]
        text = "\n".join(["image_id,region,bucket,prefix", *rows, ""])
        (self._folder / "images.csv").write_text(text, encoding="utf-8")

    def _is_half_done(self) -> bool:
        return sum(entry.accepted for entry in self._cloud.ledger) >= len(self._images) / 2

    async def _command(self, *words: str, kill_when: Callable[[], bool] | None = None) -> int:
        """Run one of our commands; return its exit code.

        Args:
            kill_when: kill the process with SIGKILL as soon as this holds.
        """
        print(f"$ orchestrator {shlex.join(words)}", flush=True)
        # -P keeps the working folder out of the import path
        command = [sys.executable, "-P", "-m", "orchestrator", *words]
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None,
            stderr=None,
            cwd=self._folder,
            env=self._environ(),
        )
        try:
            while kill_when is not None and process.returncode is None and not kill_when():
                await anyio.sleep(0.02)
            if kill_when is not None and process.returncode is None:
                process.kill()
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()

    def _environ(self) -> dict[str, str]:
        from orchestrator.simulator import DEFAULT_KEY

        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        endpoints = {
            f"ORCHESTRATOR_{service}_ENDPOINT": self._cloud.url
            for service in ("CVM", "COS", "STS", "METADATA")
        }
        return {
            **kept,
            **endpoints,
            "HOME": str(self._folder),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "ORCHESTRATOR_DATABASE_URL": str(self._database),
            "ORCHESTRATOR_VERIFY_INTERVAL": "0.5",
            "ORCHESTRATOR_RESEND_AFTER": "2",
            "TENCENTCLOUD_SECRET_ID": DEFAULT_KEY.secret_id,
            "TENCENTCLOUD_SECRET_KEY": DEFAULT_KEY.secret_key,
        }

    async def _report_kill(self) -> None:
        from orchestrator.job_states import JobState

        if sys.stderr.isatty():
            # the killed process left its progress display on the screen and the cursor hidden
            print("\x1b[?25h", file=sys.stderr)
        counts = Counter(job.state for job in await self._jobs())
        _say(
            f"Killed the process with SIGKILL: {counts[JobState.VERIFIED]} jobs are verified, "
            f"{counts[JobState.ACCEPTED]} exports are running,",
            f"{counts[JobState.SENDING]} requests were in flight: whether their exports began is "
            "unknown until the",
            "bucket has been searched.",
        )

    async def _jobs(self) -> "list[Job]":
        from orchestrator.orchestrator import Orchestrator
        from orchestrator.settings import load_settings

        settings = load_settings({"database_url": str(self._database)}, {})
        async with Orchestrator(settings=settings, create=False) as orchestrator:
            return [job async for job in orchestrator.history()]

    async def _report_counts(self) -> bool:
        """Compare jobs and ledger; return whether nothing was lost or exported twice."""
        from orchestrator.job_states import JobState

        exports = Counter(
            image for entry in self._cloud.ledger if entry.accepted for image in entry.image_ids
        )
        jobs = await self._jobs()
        verified = {
            image for job in jobs if job.state is JobState.VERIFIED for image in job.image_ids
        }
        failed = sum(job.state is JobState.FAILED for job in jobs)
        found = sum(job.state is JobState.VERIFIED and job.task_id is None for job in jobs)
        lost = len(set(exports) ^ verified) + len(jobs) - len(verified) - failed
        twice = sum(count > 1 for count in exports.values())
        _say(
            "Compared with the simulator's ledger of all requests:",
            f"  {len(verified):>4} images exported and verified",
            f"  {found:>4} of them found in the bucket after their response was lost",
            f"  {failed:>4} failed, each with its remedy",
            f"  {lost:>4} lost",
            f"  {twice:>4} exported twice",
        )
        return lost == 0 and twice == 0

    def _suggest_commands(self) -> None:
        option = f"--database-url {shlex.quote(str(self._database))}"
        _say(
            "See also:",
            f"  {_program()} history --state failed {option}",
            f"  {_program()} show {len(self._images) - 1} {option}",
            f"  {_program()} status {option}",
        )


def _say(*lines: str) -> None:
    print("", *lines, sep="\n", flush=True)


def _program() -> str:
    """Return the command that runs this program, as a user would type it."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m orchestrator"
    on_path = shutil.which(path.name)
    is_same = on_path is not None and Path(on_path).resolve() == path.resolve()
    return path.name if is_same else shlex.quote(sys.argv[0])
