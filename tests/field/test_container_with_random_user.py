"""A container with a random user id: no account, no home, one writable folder.

So OpenShift starts containers, and `docker run --user 12345`. A namespace maps this process's user
to the id, so that neither root nor a container program is needed.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.cli_process import Shell

pytestmark = [pytest.mark.anyio, pytest.mark.field]

AS_NOBODY = ("unshare", "--user", "--map-user=12345", "--")
AS_FIRST_PROCESS = (*AS_NOBODY[:-1], "--pid", "--fork", "--kill-child", "--")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Container:
    """Variables of a container, and the folder in which it can write."""

    data: Path
    variables: dict[str, str]

    async def run(self, *words: str, **more: str) -> Ended:
        """Run a command; nothing is taken from this process's environment but the PATH."""
        ended = await anyio.run_process(
            [*AS_NOBODY, sys.executable, "-m", "orchestrator", *words],
            cwd="/",
            env={"PATH": os.environ["PATH"], **self.variables, **more},
            check=False,
        )
        out, err = ended.stdout.decode(), ended.stderr.decode()
        assert "Traceback" not in out + err, out + err
        return Ended(ended.returncode, out, err)


@pytest.fixture
async def container(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Container]:
    """Yield a container that reaches a simulated cloud.

    Its environment holds keys and a database. The test is skipped if user namespaces cannot be
    used.
    """
    probe = await anyio.run_process([*AS_NOBODY, "id", "-u"], check=False)
    if probe.stdout.strip() != b"12345":
        pytest.skip(f"user namespaces cannot be used here ({probe.stderr.decode().strip()})")
    settings = Settings(cap=None, duration=Duration(seconds=0.1), queue_delay=0.01)
    async with Simulator(SimulatorOptions(settings=settings)) as cloud:
        yield Container(tmp_path, dict(Shell.for_cloud(cloud, tmp_path).variables))


async def test_every_command_works_without_home(container: Container) -> None:
    """Without a home a batch can be enqueued, exported, listed and changed."""
    image = ("--region", "ap-singapore", "--bucket", "b-1250000000")
    assert (await container.run("db", "upgrade")).code == 0
    assert (await container.run("enqueue", "--image", "img-1a2b3c4d", *image)).code == 0
    assert (await container.run("run")).code == 0
    for words in (("status", "--json"), ("history", "--json"), ("show", "1")):
        ended = await container.run(*words)
        assert (ended.code, "verified" in ended.out) == (0, True), ended
    assert (await container.run("enqueue", "--image", "img-5e6f7a8b", *image)).code == 0
    for words in (("cancel", "--all"), ("retry", "--all"), ("history", "--csv")):
        assert (await container.run(*words)).code == 0
    event = (await container.run("show", "2", "--json")).out
    assert '"actor": "user-12345@' in event


@pytest.mark.parametrize(
    "home", [{}, {"HOME": ""}, {"HOME": "/proc/none"}, {"HOME": "home"}], ids=str
)
async def test_a_needed_home_is_named(container: Container, home: dict[str, str]) -> None:
    """Without a database variable, the message names HOME and the variable to set."""
    words = (
        "enqueue",
        "--image",
        "img-1a2b3c4d",
        "--region",
        "ap-singapore",
        "--bucket",
        "b-1250000000",
    )
    ended = await container.run(*words, ORCHESTRATOR_DATABASE_URL="", **home)
    assert ended.code == 2, ended
    assert "HOME" in ended.err
    assert "ORCHESTRATOR_DATABASE_URL" in ended.err


async def test_missing_keys_name_home(container: Container) -> None:
    """A run without keys in the environment says why no file was read."""
    image = ("--image", "img-1a2b3c4d", "--region", "ap-singapore", "--bucket", "b-1250000000")
    await container.run("enqueue", *image)
    ended = await container.run(
        "run",
        TENCENTCLOUD_SECRET_ID="",
        TENCENTCLOUD_SECRET_KEY="",
        ORCHESTRATOR_METADATA_ENDPOINT="http://127.0.0.1:9",
    )
    assert ended.code == 6, ended
    assert "HOME is not set" in ended.err


async def test_the_first_process_of_a_container_ends_on_sigterm(container: Container) -> None:
    """As the first process of a container, `run` ends on SIGTERM.

    The kernel drops a signal that the first process does not handle.
    """
    command = [*AS_FIRST_PROCESS, sys.executable, "-m", "orchestrator", "run", "--forever"]
    environ = {"PATH": os.environ["PATH"], **container.variables}
    async with await anyio.open_process(command, env=environ, cwd="/") as process:
        assert process.stderr is not None
        output = (await process.stderr.receive()).decode()
        # the worker's lock file exists once the run has begun
        while not list(container.data.glob("*.alive-*")):
            await anyio.sleep(0.02)
        children = anyio.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        os.kill(int((await children.read_text()).split()[0]), signal.SIGTERM)
        with anyio.fail_after(60):
            async for piece in process.stderr:
                output += piece.decode()
            assert await process.wait() == 143, output
    assert "Stopping" in output
