"""Which keys a run signs with, and what it says of them at its start."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.simulator import DEFAULT_KEY, Key, Settings, Simulator, SimulatorOptions
from tests.cli_process import Shell

pytestmark = pytest.mark.anyio

B = Key("AKIDb", "secret-of-b", "100000000002")
ENQUEUE = (
    *("enqueue", "--image", "img-00000001", "--region", "ap-singapore"),
    *("--bucket", "backup-1250000000"),
)


def write_profile(home: Path) -> None:
    """Write the keys of account B as `tccli configure --profile b` does."""
    folder = home / ".tccli"
    folder.mkdir(mode=0o700)
    (folder / "b.credential").write_text(
        json.dumps({"secretId": B.secret_id, "secretKey": B.secret_key})
    )


@pytest.mark.parametrize("named_by", ["flag", "variable", "file"])
async def test_named_profile_signs_although_the_environment_has_keys(
    tmp_path: Path, named_by: str
) -> None:
    """The keys of account A are in the environment, those of B in a file: B signs."""
    write_profile(tmp_path)
    config = tmp_path / "settings.toml"
    config.write_text('profile = "b"\n')
    variables, flags = {
        "flag": ({}, ("--profile", "b")),
        "variable": ({"ORCHESTRATOR_PROFILE": "b"}, ()),
        "file": ({"ORCHESTRATOR_CONFIG": str(config)}, ()),
    }[named_by]
    options = SimulatorOptions(keys=(DEFAULT_KEY, B), settings=Settings(limits={}))
    async with Simulator(options) as cloud:
        shell = Shell.for_cloud(cloud, tmp_path)
        shell = replace(shell, variables={**shell.variables, **variables})
        assert (await shell.run(*ENQUEUE, *flags)).code == 0
        ended = await shell.run("run", *flags)
    signed_by = {entry.account for entry in cloud.ledger if entry.action == "ExportImages"}
    assert ended.code == 0, ended.err
    assert signed_by == {B.account}
    assert (
        "Keys: profile b of ~/.tccli/b.credential (TENCENTCLOUD_SECRET_ID in the environment is "
        "not used)."
    ) in ended.err.replace("\n", " ")
    assert B.secret_key not in ended.err


async def test_run_says_that_the_environment_has_the_keys(tmp_path: Path) -> None:
    """A run prints the origin of its keys even if nothing conflicts with them.

    With `--json` it prints the origin on stderr, and stdout has only data.
    """
    async with Simulator(SimulatorOptions(settings=Settings(limits={}))) as cloud:
        shell = Shell.for_cloud(cloud, tmp_path)
        await shell.run(*ENQUEUE)
        ended = await shell.run("run", "--json")
    expected = "Keys: TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY in the environment."
    assert expected in ended.err
    assert ended.json["verified"] == 1


async def test_spoiled_key_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    """Quotes are named with their variable; the exit code is 6, and nothing was sent."""
    async with Simulator(SimulatorOptions(settings=Settings(limits={}))) as cloud:
        shell = Shell.for_cloud(
            cloud, tmp_path, TENCENTCLOUD_SECRET_KEY=f'"{DEFAULT_KEY.secret_key}"'
        )
        await shell.run(*ENQUEUE)
        ended = await shell.run("run")
    assert ended.code == 6
    assert "TENCENTCLOUD_SECRET_KEY has quotes around it." in ended.err
    assert DEFAULT_KEY.secret_key not in ended.err
    assert "Traceback" not in ended.err
    assert not list(cloud.ledger)
