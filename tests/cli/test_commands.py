import csv
import io
import signal
import sqlite3

import pytest

from orchestrator.simulator import (
    BucketSettings,
    Fault,
    ImageSettings,
    Simulator,
)
from tests.cli_process import Shell, wait_for_output, wait_until

pytestmark = pytest.mark.anyio

WHERE = ("--region", "ap-singapore", "--bucket", "backup-1250000000")


def manifest(count: int) -> bytes:
    """A CSV of so many images."""
    rows = "".join(f"img-{i:08d},ap-singapore,backup-1250000000\n" for i in range(count))
    return f"image_id,region,bucket\n{rows}".encode()


async def test_a_manifest_is_exported_and_its_history_agrees_with_the_cloud(
    shell: Shell, cloud: Simulator
) -> None:
    """What `run --json` counts and `history --json` lists is what the cloud's ledger says."""
    assert (await shell.run("enqueue", "-", stdin=manifest(5))).code == 0
    ended = await shell.run("run", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verified"] == 5
    assert ended.json["requests"] == 5
    rows = (await shell.run("history", "--json")).rows
    accepted = {entry.image_ids: entry for entry in cloud.ledger if entry.accepted}
    assert [row["id"] for row in rows] == [5, 4, 3, 2, 1]
    for row in rows:
        entry = accepted[tuple(row["image_ids"])]
        assert row["task_id"] == entry.task_id
        assert row["request_id"] == entry.request_id
        assert sorted(row["cos_paths"]) == sorted(entry.cos_paths)


async def test_the_same_manifest_twice_adds_nothing(shell: Shell) -> None:
    """Enqueueing is idempotent while the jobs live, and `--again` says otherwise."""
    first = await shell.run("enqueue", "-", "--batch", "one", "--json", stdin=manifest(3))
    second = await shell.run("enqueue", "-", "--json", stdin=manifest(3))
    third = await shell.run("enqueue", "-", "--again", "--json", stdin=manifest(3))
    assert first.json == {"batch": "one", "added": 3, "duplicates": 0, "invalid": 0}
    assert (second.json["added"], second.json["duplicates"]) == (0, 3)
    assert third.json["added"] == 3


async def test_images_named_by_flags_are_enqueued(shell: Shell) -> None:
    """`--image` may be repeated, and `--region` falls back on its variable."""
    shell = Shell(shell.folder, {**shell.variables, "TENCENTCLOUD_REGION": "ap-tokyo"})
    where = ("--bucket", "backup-1250000000", "--format", "vhd")
    done = await shell.run(
        "enqueue", "--image", "img-00000001", "--image", "img-00000002", *where, "--json"
    )
    assert done.json["added"] == 2
    rows = (await shell.run("history", "--json")).rows
    assert {(row["region"], row["format"]) for row in rows} == {("ap-tokyo", "VHD")}


async def test_faults_of_a_manifest_are_told_at_once_and_nothing_is_enqueued(shell: Shell) -> None:
    """Every fault has its line; exit code 2; no store is made."""
    text = b"image_id,region,bucket\nimg-1,ap-singapore,backup\nimg-00000002,x,backup-1250000000\n"
    refused = await shell.run("enqueue", "-", stdin=text)
    assert refused.code == 2
    assert [place in refused.err for place in ("line 2, image_id", "line 2, bucket", "line 3")]
    assert "Traceback" not in refused.err
    assert not (shell.folder / "exports.db").exists()


async def test_good_rows_are_taken_where_that_is_asked_for(shell: Shell) -> None:
    """`--skip-invalid` takes the good rows, says what it left out, and exits with 0."""
    text = b"image_id,region,bucket,note\nimg-1,ap-singapore,backup-1250000000,x\n"
    text += b"img-00000002,ap-singapore,backup-1250000000,y\n"
    done = await shell.run("enqueue", "-", "--skip-invalid", "--json", stdin=text)
    assert done.code == 0
    assert (done.json["added"], done.json["invalid"]) == (1, 1)
    assert "line 2" in done.err
    assert "note" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enqueue", "missing.csv"), "missing.csv"),
        (("enqueue",), "either a manifest or images"),
        (("enqueue", "--image", "img-00000001"), "Give it with --region"),
        (("history",), "no store"),
        (("status", "--config", "missing.toml"), "missing.toml"),
        (("run", "--rate", "-1"), "--rate"),
        (("run", "--verify", "maybe"), "--verify"),
        (("history", "--state", "lost"), "--state lost"),
        (("history", "--since", "yesterday"), "--since yesterday"),
        (("history", "--json", "--csv"), "--csv"),
    ],
)
async def test_unusable_input_ends_with_2_and_a_sentence(
    shell: Shell, words: tuple[str, ...], said: str
) -> None:
    """The message names the input and what to do; there is no traceback and no output."""
    refused = await shell.run(*words)
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert refused.out == ""


async def test_a_run_without_keys_says_where_it_looked(shell: Shell) -> None:
    """A person must act before anything can be sent."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    bare = {k: v for k, v in shell.variables.items() if not k.startswith("TENCENTCLOUD")}
    refused = await Shell(shell.folder, bare).run("run")
    assert refused.code == 6
    assert "TENCENTCLOUD_SECRET_ID" in refused.err
    assert ".tccli" in refused.err


async def test_certificates_that_are_not_there_are_named(shell: Shell) -> None:
    """SSL_CERT_FILE that names nothing is unusable input: its name and value are in the message."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    variables = {**shell.variables, "SSL_CERT_FILE": "/not/there.pem"}
    refused = await Shell(shell.folder, variables).run("run")
    assert refused.code == 2
    assert "SSL_CERT_FILE names /not/there.pem" in refused.err
    assert "Traceback" not in refused.err


async def test_plain_http_beyond_this_machine_is_refused(shell: Shell) -> None:
    """An endpoint without TLS is named with the setting that would permit it."""
    refused = await shell.run("run", "--cvm-endpoint", "http://cvm.example")
    assert refused.code == 2
    assert "ORCHESTRATOR_ALLOW_PLAIN_HTTP" in refused.err


async def test_a_run_with_nothing_to_do_needs_no_keys(shell: Shell) -> None:
    """An empty store is drained at once, with exit code 0."""
    bare = Shell(shell.folder, {"ORCHESTRATOR_DATABASE_URL": str(shell.folder / "exports.db")})
    ended = await bare.run("run", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verified"] == ended.json["requests"] == 0


async def test_a_batch_that_is_none_is_named(shell: Shell) -> None:
    """A misspelled name does not look like a night that was done already."""
    await shell.run("enqueue", "-", "--batch", "tonight", stdin=manifest(1))
    ended = await shell.run("run", "--batch", "tonigth")
    assert (ended.code, ended.out) == (0, "Nothing to do: no job has batch 'tonigth'.\n")


async def test_some_failed_is_exit_code_3_and_each_shows_its_remedy(
    shell: Shell, cloud: Simulator
) -> None:
    """A refused image leaves its code and remedy in the history; the others are verified."""
    cloud.change(images={"img-00000001": ImageSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(3))
    ended = await shell.run("run")
    assert ended.code == 3
    assert "history --state failed" in ended.out
    (row,) = (await shell.run("history", "--state", "failed", "--json")).rows
    assert row["code"] == "InvalidImageId.NotFound"
    assert row["remedy"]


async def test_on_a_narrow_terminal_what_is_wrong_stands_below(
    shell: Shell, cloud: Simulator
) -> None:
    """No line is longer than the terminal, and the remedy is there to its last word."""
    cloud.change(images={"img-00000001": ImageSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(2))
    assert (await shell.run("run")).code == 3
    (failed,) = (await shell.run("history", "--state", "failed", "--json")).rows
    shown = await shell.run_at_terminal("history", columns=60)
    assert all(len(line) <= 60 for line in shown.splitlines())
    assert f"{failed['code']}: {failed['remedy']}" in " ".join(shown.split())


async def test_a_missing_bucket_is_exit_code_6(shell: Shell, cloud: Simulator) -> None:
    """Work that only a person can set free is left, and the summary says what to mend."""
    cloud.change(buckets={"backup-1250000000": BucketSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(3))
    ended = await shell.run("run")
    assert ended.code == 6
    assert "InvalidParameterValue.BucketNotFound" in ended.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_lets_what_is_in_the_air_finish(
    shell: Shell, cloud: Simulator, number: signal.Signals, code: int
) -> None:
    """After the first signal nothing more is sent, nothing is in doubt, and a run resumes."""
    await shell.run("enqueue", "-", stdin=manifest(40))
    async with shell.start("run") as process:
        await wait_until(lambda: sum(entry.accepted for entry in cloud.ledger) >= 3)
        process.send_signal(number)
        assert await process.wait() == code
    left = (await shell.run("status", "--json")).json
    assert left["sending"] == left["unknown"] == 0
    assert left["queued"] > 0
    assert (await shell.run("run")).code == 0
    accepted = [entry.image_ids for entry in cloud.ledger if entry.accepted]
    assert len(accepted) == len(set(accepted)) == 40


async def test_a_second_signal_ends_the_run_at_once(shell: Shell, cloud: Simulator) -> None:
    """It waits for no answer: what is in the air stays marked so, for the next run to look up."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=600.0))
    await shell.run("enqueue", "-", stdin=manifest(2))
    async with shell.start("run") as process:
        await wait_until(lambda: any(entry.action == "DescribeImages" for entry in cloud.ledger))
        await wait_until(lambda: _states(shell)["sending"] == 2)
        process.send_signal(signal.SIGINT)
        # two that are pending at once would be one
        await wait_for_output(process, "Again to stop at once")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert _states(shell)["sending"] == 2


def _states(shell: Shell) -> dict[str, int]:
    with sqlite3.connect(shell.folder / "exports.db") as connection:
        rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
    connection.close()
    return {"sending": 0, **dict(rows)}


async def test_csv_cells_that_a_spreadsheet_would_run_are_harmless(shell: Shell) -> None:
    """A prefix that begins like a formula is written with a quote before it."""
    text = b"image_id,region,bucket,prefix\nimg-00000001,ap-singapore,backup-1250000000,=1+1\n"
    await shell.run("enqueue", "-", stdin=text)
    listed = await shell.run("history", "--csv")
    (row,) = csv.DictReader(io.StringIO(listed.out))
    assert row["prefix"] == "'=1+1"


async def test_show_tells_everything_about_one_job(shell: Shell) -> None:
    """Attempt, RequestId, object and events are there, for eyes and as JSON."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    await shell.run("run")
    told = (await shell.run("show", "1", "--json")).json
    assert [event["kind"] for event in told["events"]] == [
        "enqueued",
        "claimed",
        "accepted",
        "verified",
    ]
    assert told["attempts_made"][0]["request_id"] == told["request_id"]
    assert all(found["size"] > 0 for found in told["objects"])
    shown = await shell.run("show", told["tag"])
    assert str(told["task_id"]) in shown.out


async def test_no_secret_is_kept_or_said(shell: Shell) -> None:
    """The secret key is in no file that a run leaves and in nothing it prints."""
    await shell.run("enqueue", "-", stdin=manifest(2))
    ended = await shell.run("run")
    secret = shell.variables["TENCENTCLOUD_SECRET_KEY"]
    assert secret not in ended.out + ended.err
    for path in shell.folder.iterdir():
        assert secret.encode() not in path.read_bytes(), path


async def test_db_upgrade_makes_and_confirms_the_store(shell: Shell) -> None:
    """The first call makes the tables, the second finds them current."""
    made = await shell.run("db", "upgrade")
    again = await shell.run("db", "upgrade")
    assert (made.code, again.code) == (0, 0)
    assert "new → " in made.out
    assert "current" in again.out


@pytest.mark.parametrize("command", [("status",), ("enqueue", "-"), ("run",)])
async def test_a_link_in_the_place_of_a_lock_is_named(
    shell: Shell, command: tuple[str, ...]
) -> None:
    """The message names the file and says what to do; the file to which it leads is unchanged."""
    assert (await shell.run("enqueue", "-", stdin=manifest(1))).code == 0
    (precious := shell.folder / "precious").write_text("precious")
    (link := shell.folder / "exports.db.lock").unlink(missing_ok=True)
    link.symlink_to(precious)
    ended = await shell.run(*command, stdin=manifest(2))
    assert ended.code == 2
    assert f"{link} is a symbolic link" in ended.err
    assert "remove it" in ended.err
    assert "Traceback" not in ended.err
    assert precious.read_text() == "precious"
