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
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.errors import UsageError
from orchestrator.job_states import JobState

if TYPE_CHECKING:
    from orchestrator.reporting.history import Job
    from orchestrator.simulator import Simulator

_REGION, _BUCKET, _BATCH = "ap-singapore", "demo-1250000000", "demo"

_KEPT_VARIABLES = (
    *("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TERM", "COLUMNS", "LINES", "NO_COLOR", "COLORTERM"),
    *("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8"),
)
"""Variables that the commands inherit; proxies, credentials and settings are left out."""

_AFTER_KILL = {
    JobState.VERIFIED: "their objects are in the bucket",
    JobState.ACCEPTED: "the cloud exports them, whether a run is active or not",
    JobState.SENDING: "no response yet, so these exports may have begun",
    JobState.UNKNOWN: "the response was lost, so these exports may have begun",
    JobState.FAILED: "refused by the cloud",
    JobState.QUEUED: "to be sent",
}
"""What each state means for the jobs of a run that was killed."""


def command(
    images: Annotated[int, typer.Option(min=20, max=200, help="Number of images to export.")] = 200,
) -> None:
    """Show a batch export in a simulated cloud.

    Some images are refused, some responses are lost, and the process is killed on the way. It
    needs no account, sends nothing beyond this machine, and takes less than a minute.

    Example: orchestrator demo --images 50
    """
    from anyio.from_thread import start_blocking_portal

    folder = _make_folder()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    cloud = _make_cloud(images, folder)
    try:
        # the simulator serves in a thread of its own, while this one waits for the commands
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(cloud):
            is_exact = _Demo(cloud, folder).run()
    except SystemExit:  # a signal
        shutil.rmtree(folder)
        raise
    sys.exit(0 if is_exact else 1)


def _make_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    except OSError as error:
        raise UsageError(
            f"There is no folder for temporary files: {error.strerror}.",
            "Set TMPDIR to a folder that this user can write.",
        ) from error


def _make_cloud(count: int, folder: Path) -> "Simulator":
    """Make a cloud that refuses three exports and loses three other responses."""
    from orchestrator import simulator

    duration = simulator.Duration("uniform", seconds=1.0, spread=0.6)
    settings = simulator.Settings(cap=24, duration=duration)
    cloud = simulator.Simulator(
        simulator.SimulatorOptions(images=count, ledger=folder / "ledger.jsonl", settings=settings)
    )
    images = [image.image_id for image in cloud.images]
    lost = tuple(images[:: count // 3][:3])
    cloud.change(
        # among the newest jobs, so that the table at the end shows them
        images={
            images[-2]: simulator.ImageSettings(encrypted=True),
            images[-4]: simulator.ImageSettings(market=True),
            images[-6]: simulator.ImageSettings(missing=True),
        },
        faults=(
            # slow enough that some requests are always in flight when the process is killed
            simulator.Fault("latency", action="ExportImages", seconds=0.3),
            simulator.Fault("reset", action="ExportImages", after=True, images=lost),
        ),
    )
    return cloud


class _Demo:
    """The steps of the demo, in order.

    Args:
        folder: for the manifest, the database and the ledger.
    """

    def __init__(self, cloud: "Simulator", folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        self._database = folder / "demo.db"

    def run(self) -> bool:
        """Run all steps; return whether the demo succeeded.

        It succeeded if the second run ended with exit code 0 or 3 (some jobs failed), no image was
        lost, and none was exported twice.
        """
        images = len(self._cloud.images)
        _say(
            f"A simulated Tencent Cloud is listening on {self._cloud.url}.",
            "It allows 20 requests per second and 24 exports at a time. To show how a batch",
            f"recovers, it refuses 3 of the {images} images and loses 3 of its responses, and the",
            "demo kills the first run halfway. Nothing leaves this machine.",
            "",
        )
        rows = [f"{image.image_id},{_REGION},{_BUCKET},nightly" for image in self._cloud.images]
        text = "\n".join(["image_id,region,bucket,prefix", *rows, ""])
        (self._folder / "images.csv").write_text(text, encoding="utf-8")
        self._command("enqueue", "images.csv", "--batch", _BATCH)
        _say("First run: it sends requests, waits for the exports and verifies their objects.")
        code = self._command("run", "--batch", _BATCH, is_killed=True)
        if code != -signal.SIGKILL:
            _say(f"The demo has stopped, because this run ended by itself with exit code {code}.")
            return False
        self._report_kill()
        _say(
            "Second run: it continues where the first one was killed. Before it sends an",
            "unanswered request again, it searches the bucket for the objects of its export.",
        )
        code = self._command("run", "--batch", _BATCH)
        _say("The newest jobs. Below each failed one: the cloud's reason and what to do.")
        self._command("history", "--limit", "8")
        has_succeeded = self._report_counts() and code in {0, 3}
        option = f"--database-url {self._database.name}"
        _say(
            "Every image was exported once or refused with a reason, in spite of the kill."
            if has_succeeded
            else "This is not what the demo should show. Please report it with all of the above.",
            "",
            "To look further, change to the demo's folder, which you may delete afterwards:",
            f"  cd {shlex.quote(str(self._folder))}",
            f"  {_program()} history --state failed {option}",
            f"  {_program()} show {images - 1} {option}",
            f"  {_program()} status {option}",
        )
        return has_succeeded

    def _command(self, *words: str, is_killed: bool = False) -> int:
        """Run one of our commands; return its exit code.

        Args:
            is_killed: kill the process with SIGKILL once half of the exports were accepted.
        """
        print(f"$ orchestrator {shlex.join(words)}", flush=True)
        # -P keeps the working folder out of the import path
        command = [sys.executable, "-P", "-m", "orchestrator", *words]
        with subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, cwd=self._folder, env=self._environ()
        ) as process:
            try:
                while is_killed and process.poll() is None:
                    time.sleep(0.02)  # the ledger notifies nobody
                    accepted = sum(entry.accepted for entry in self._cloud.ledger)
                    if accepted >= len(self._cloud.images) / 2:
                        process.kill()
                return process.wait()
            finally:
                process.kill()

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

    def _report_kill(self) -> None:
        if sys.stderr.isatty():
            # the killed process left its progress display on the screen and the cursor hidden
            print("\x1b[?25h", file=sys.stderr)
        counts = Counter(job.state for job in self._jobs())
        _say(
            "The demo has killed this run with SIGKILL, like a power cut. Its jobs are now:",
            *(f"  {counts[state]:>4} {state}: {what}" for state, what in _AFTER_KILL.items()),
        )

    def _jobs(self) -> "list[Job]":
        from orchestrator.orchestrator import Orchestrator

        async def history() -> "list[Job]":
            async with Orchestrator(str(self._database), environ={}) as orchestrator:
                return [job async for job in orchestrator.history()]

        return anyio.run(history)

    def _report_counts(self) -> bool:
        """Compare jobs and ledger; return whether nothing was lost or exported twice."""
        exports = Counter(
            image for entry in self._cloud.ledger if entry.accepted for image in entry.image_ids
        )
        jobs = self._jobs()
        verified = {
            image for job in jobs if job.state is JobState.VERIFIED for image in job.image_ids
        }
        failed = {image for job in jobs if job.state is JobState.FAILED for image in job.image_ids}
        found = sum(job.state is JobState.VERIFIED and job.task_id is None for job in jobs)
        unfinished = len(jobs) - len(verified) - len(failed)
        images = len(self._cloud.images)
        lost = images - len(jobs) + len(verified - set(exports)) + len(failed & set(exports))
        twice = sum(count > 1 for count in exports.values())
        _say(
            f"Final count of {images} images, checked against the cloud's own record:",
            f"  {len(verified):>4} exported and verified",
            f"  {found:>4} of these found in the bucket, as their response had not arrived",
            f"  {len(failed):>4} refused by the cloud, each with a reason and a remedy",
            f"  {unfinished:>4} not finished",
            f"  {lost:>4} lost",
            f"  {twice:>4} exported twice",
        )
        return unfinished == lost == twice == 0


def _say(*lines: str) -> None:
    print("", *lines, sep="\n", flush=True)


def _program() -> str:
    """Return the command that runs this program, as a user would type it."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m orchestrator"
    on_path = shutil.which(path.name)
    is_on_path = on_path is not None and path.samefile(on_path)
    return path.name if is_on_path else shlex.quote(str(path.absolute()))
