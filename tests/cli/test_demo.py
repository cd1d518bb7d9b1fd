"""The demo, run as a user would, in an unfriendly environment."""

import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

from orchestrator.cli import demo
from orchestrator.errors import UsageError
from tests.cli_process import Shell, wait_until

pytestmark = pytest.mark.anyio

UNFRIENDLY = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "[::1],fd07::/64,[",
    "SSL_CERT_FILE": "/not/there.pem",
    "REQUESTS_CA_BUNDLE": "/not/there.pem",
    "LC_ALL": "xx_YY.ISO-8859-1",
    "PYTHONIOENCODING": "ascii",
    "COLUMNS": "none",
    "LINES": "none",
    "TERM": "unknown",
    "FORCE_COLOR": "1",
    "TZ": "nonsense",
    "HOME": "/not/there",
    "XDG_DATA_HOME": "not/absolute",
    "PWD": "/not/there",
    "PYTHONOPTIMIZE": "2",
    "PGHOST": "/not/there",
    "TENCENTCLOUD_TOKEN": "expired",
    "TENCENTCLOUD_ROLE_ARN": "qcs::cam::uin/1:roleName/none",
    "TCCLI_PROFILE": "other",
    "ORCHESTRATOR_RATE": "-1",
    "ORCHESTRATOR_DATABASE_URL": "/not/there/exports.db",
    "ORCHESTRATOR_CONFIG": "/not/there.toml",
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell with variables that would break a run."""
    return Shell(tmp_path, {**UNFRIENDLY, "TMPDIR": str(tmp_path)})


async def test_demo_loses_nothing_and_exports_nothing_twice(shell: Shell) -> None:
    """The demo kills and resumes a run, and shows failures with their remedies.

    It leaves no lock. Its text fits 80 columns, except for paths.
    """
    ended = await shell.run("demo", "--images", "30")
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.out + ended.err
    assert "The demo has killed this run with SIGKILL" in ended.out
    assert ended.out.count("$ orchestrator run --batch demo") == 2
    counts = {
        words: int(number)
        for number, words in re.findall(r"^ +(\d+) (.+)$", ended.out, re.MULTILINE)
    }
    assert counts["exported and verified"] == 27
    assert counts["refused by the cloud, each with a reason and a remedy"] == 3
    assert counts["of these found in the bucket, as their response had not arrived"] >= 3
    assert (counts["not finished"], counts["lost"], counts["exported twice"]) == (0, 0, 0)
    before, table = ended.out.split("$ orchestrator history")
    prose = [*before.splitlines(), *table[table.index("Final count") :].splitlines()]
    assert [line for line in prose if len(line) > 80 and "orchestrator" not in line] == []
    assert "UnsupportedOperation.EncryptedImagesNotSupported: " in ended.out
    assert len(re.findall(r"^  \S.* --database-url ", ended.out, re.MULTILINE)) == 3
    (folder,) = shell.folder.glob("orchestrator-demo-*")
    assert list(folder.glob("*.alive-*")) == []


async def test_a_run_that_fails_is_not_presented_as_killed(shell: Shell) -> None:
    """The demo stops without counts if a run cannot open enough files to begin."""
    words = 'ulimit -n 39; exec "$0" -m orchestrator demo --images 20'
    ended = await anyio.run_process(
        ["sh", "-c", words, sys.executable],
        check=False,
        cwd=shell.folder,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(shell.folder)},
    )
    assert ended.returncode == 1
    assert b"The hard limit of open files is 39" in ended.stderr
    assert b"this run ended by itself with exit code 2." in ended.stdout
    assert b"SIGKILL" not in ended.stdout
    assert b" lost" not in ended.stdout


def test_a_missing_temporary_folder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo needs one, and TMPDIR names it."""
    monkeypatch.setattr(tempfile, "tempdir", "/not/there")
    with pytest.raises(UsageError, match="no folder for temporary files") as caught:
        demo.command()
    assert "TMPDIR" in caught.value.remedy


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_no_process(shell: Shell, number: signal.Signals) -> None:
    """After a signal the demo ends, and so do the commands that it has started."""
    async with shell.start("demo", "--images", "200") as process:
        await wait_until(lambda: any(shell.folder.glob("orchestrator-demo-*/*.alive-*")))
        process.send_signal(number)
        assert await process.wait() == 128 + number
        assert process.stdout is not None
        # the pipe ends only when all processes that could write to it have ended
        with anyio.fail_after(10):
            async for _ in process.stdout:
                pass
