"""The commands, each run as a process of its own."""

import csv
import io
import json
import signal
import sqlite3

import pytest
from anyio import to_thread

from orchestrator.simulator import (
    BucketSettings,
    Fault,
    ImageSettings,
    Simulator,
)
from tests.cli_process import Shell, at_terminal, wait_for_output, wait_until

pytestmark = pytest.mark.anyio

WHERE = ("--region", "ap-singapore", "--bucket", "backup-1250000000")


def manifest(count: int) -> bytes:
    """Return a CSV manifest with this number of images."""
    rows = "".join(f"img-{i:08d},ap-singapore,backup-1250000000\n" for i in range(count))
    return f"image_id,region,bucket\n{rows}".encode()


async def test_run_exports_a_manifest_and_history_agrees_with_the_cloud(
    shell: Shell, cloud: Simulator
) -> None:
    """`run --json` and `history --json` agree with the ledger of the simulated cloud."""
    assert (await shell.run("enqueue", "-", stdin=manifest(5))).code == 0
    ended = await shell.run("run", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verified"] == 5
    assert ended.json["requests"] == 5
    assert ended.json["halts"] == []
    rows = (await shell.run("history", "--json")).rows
    accepted = {entry.image_ids: entry for entry in cloud.ledger if entry.accepted}
    assert [row["id"] for row in rows] == [5, 4, 3, 2, 1]
    for row in rows:
        entry = accepted[tuple(row["image_ids"])]
        assert row["task_id"] == entry.task_id
        assert row["request_id"] == entry.request_id
        assert sorted(row["cos_paths"]) == sorted(entry.cos_paths)


async def test_enqueueing_the_same_manifest_again_adds_only_duplicates(shell: Shell) -> None:
    """A second enqueue adds nothing unless `--again` is given."""
    first = await shell.run("enqueue", "-", "--batch", "one", "--json", stdin=manifest(3))
    second = await shell.run("enqueue", "-", "--json", stdin=manifest(3))
    third = await shell.run("enqueue", "-", "--again", "--json", stdin=manifest(3))
    assert first.json == {"batch": "one", "added": 3, "duplicates": 0, "invalid": 0}
    assert (second.json["added"], second.json["duplicates"]) == (0, 3)
    assert third.json["added"] == 3
    for count, counted in ((1, "1 duplicate"), (2, "2 duplicates")):
        shown = await shell.run("enqueue", "-", "--batch", "two", stdin=manifest(count))
        assert shown.out == f"Batch two: 0 added, {counted}, 0 invalid.\n"


async def test_images_can_be_given_as_options(shell: Shell) -> None:
    """`--image` is repeatable, and `--region` defaults to TENCENTCLOUD_REGION."""
    shell = Shell(shell.folder, {**shell.variables, "TENCENTCLOUD_REGION": "ap-tokyo"})
    where = ("--bucket", "backup-1250000000", "--format", "vhd")
    done = await shell.run(
        "enqueue", "--image", "img-00000001", "--image", "img-00000002", *where, "--json"
    )
    assert done.json["added"] == 2
    rows = (await shell.run("history", "--json")).rows
    assert {(row["region"], row["format"]) for row in rows} == {("ap-tokyo", "VHD")}


async def test_an_invalid_manifest_enqueues_nothing(shell: Shell) -> None:
    """Each error is printed with its line, and no database is created.

    The exit code is 2.
    """
    text = b"image_id,region,bucket\nimg-1,ap-singapore,backup\nimg-00000002,x,backup-1250000000\n"
    refused = await shell.run("enqueue", "-", stdin=text)
    assert refused.code == 2
    assert all(place in refused.err for place in ("line 2, image_id", "line 2, bucket", "line 3"))
    assert "Traceback" not in refused.err
    assert not (shell.folder / "exports.db").exists()


async def test_skip_invalid_enqueues_the_valid_rows(shell: Shell) -> None:
    """`--skip-invalid` enqueues valid rows, prints what it skipped, and exits with 0."""
    text = b"image_id,region,bucket,note\nimg-1,ap-singapore,backup-1250000000,x\n"
    text += b"img-00000002,ap-singapore,backup-1250000000,y\n"
    done = await shell.run("enqueue", "-", "--skip-invalid", "--json", stdin=text)
    assert done.code == 0
    assert (done.json["added"], done.json["invalid"]) == (1, 1)
    assert "Skipped: line 2" in done.err
    assert "Ignored unknown columns: note\n" in done.err


async def test_what_skip_invalid_does_is_said_before_it_is_used(shell: Shell) -> None:
    """It takes the valid rows, and ignores unknown columns too."""
    text = b"image_id,note\nimg-00000001,x\n"
    refused = await shell.run("enqueue", "-", *WHERE, stdin=text)
    assert refused.err.endswith(
        "use --skip-invalid: it enqueues the valid rows and ignores unknown columns.\n"
    )
    described = " ".join((await shell.run("enqueue", "--help")).out.split())
    assert "Enqueue the valid rows; ignore unknown columns." in described


async def test_repeated_ids_are_one_message(shell: Shell) -> None:
    """Whichever line each of them repeats; `--skip-invalid` takes each id once."""
    text = "".join(f"img-{i:08}\n" for i in range(300)).encode() * 2
    refused = await shell.run("enqueue", "-", *WHERE, stdin=text)
    assert refused.code == 2
    (only,) = refused.err.splitlines()[1:-1]
    assert only.startswith("  300 rows, first line 301: repeats img-00000000 of line 1. Remove")
    taken = await shell.run("enqueue", "-", *WHERE, "--skip-invalid", "--json", stdin=text)
    assert (taken.code, taken.json["added"], taken.json["invalid"]) == (0, 300, 300)
    assert taken.json["faults"][0]["repeats"] == 1


@pytest.mark.parametrize(
    "text",
    [b"image_id,prefix\nimg-a,\xb1\xb8\nimg-b,\xb1\xb8\n", b"", b"\n\n", b"image_id\n", b"[]"],
)
async def test_skip_invalid_without_a_valid_row_exits_with_2(shell: Shell, text: bytes) -> None:
    """Nothing was enqueued, so a script must not go on; `--json` lists the faults."""
    where = ("enqueue", "-", "--skip-invalid", *WHERE)
    shown = await shell.run(*where, stdin=text)
    refused = await shell.run(*where, "--json", stdin=text)
    assert (shown.code, refused.code) == (2, 2)
    assert "nothing was enqueued" in shown.err
    assert (refused.json["added"], refused.json["invalid"]) == (0, text.count(b"img"))
    assert refused.json["faults"]
    assert not (shell.folder / "exports.db").exists()


async def test_a_screen_shows_twenty_faults_and_json_all(shell: Shell) -> None:
    """Equal faults of many rows are one line with their number and the first line."""
    rows = "".join(f"bad-{i},ap-tokyo\n" for i in range(800)) + "img-00000001,sg\n" * 30
    text = f"image_id,region\n{rows}".encode()
    refused = await shell.run("enqueue", "-", "--bucket", "b-1250000000", "--json", stdin=text)
    assert refused.code == 2
    assert "line 21, image_id" in refused.err
    assert "line 22, image_id" not in refused.err
    assert "and 810 more (all of them with --json)" in refused.err
    assert len(refused.json["faults"]) == 830
    assert refused.json["faults"][829]["number"] == 831
    again = await shell.run("enqueue", "-", *WHERE, stdin=b"image_id,region\n" + b"img-1,sg\n" * 30)
    assert "30 rows, first line 2, region: 'sg' is not a valid region." in again.err
    assert again.err.count("sg") == 1


async def test_a_chinese_spreadsheet_is_read_with_its_encoding(shell: Shell) -> None:
    """Without `--encoding` one message has the remedy; with it all rows are enqueued."""
    rows = "".join(f"img-{i:08d},备份\n" for i in range(800))
    text = f"image_id,prefix\n{rows}".encode("gb18030")
    refused = await shell.run("enqueue", "-", *WHERE, stdin=text)
    assert "800 rows, first line 2: is not valid UTF-8." in refused.err
    assert len(refused.err.splitlines()) == 3
    done = await shell.run("enqueue", "-", *WHERE, "--encoding", "GB18030", "--json", stdin=text)
    assert (done.code, done.json["added"]) == (0, 800)
    assert (await shell.run("enqueue", "-", "--encoding", "gb1803", stdin=text)).code == 2


async def test_an_answer_of_tccli_is_enqueued(shell: Shell) -> None:
    """Keys of the images that are not needed are ignored and named once."""
    names = ("ImageName", "OsName", "ImageSize", "Platform", "Tags", "ImageState", "Architecture")
    images = [{"ImageId": f"img-{i:08d}", **dict.fromkeys(names, "x")} for i in range(100)]
    answer = {"TotalCount": 120, "ImageSet": images, "RequestId": "r"}
    text = json.dumps(answer, indent=4).encode()
    done = await shell.run("enqueue", "-", *WHERE, "--json", stdin=text)
    assert (done.code, done.json["added"]) == (0, 100)
    assert done.err.splitlines() == [
        "Ignored unknown columns: ImageName, OsName, ImageSize, Platform, Tags, … and 2 more",
        (
            "Note: The answer of DescribeImages has 100 of 120 images. Get the others with "
            "--Offset and --Limit, and enqueue them too."
        ),
    ]


async def test_enqueue_prints_when_the_first_job_may_be_sent(shell: Shell) -> None:
    """A time without an offset is in UTC, which people may not expect."""
    shell = Shell(shell.folder, {**shell.variables, "TZ": "XST-8"})
    text = b"image_id,not_before\nimg-00000001,2099/11/30 2:00\nimg-00000002,2099-12-01\n"
    done = await shell.run("enqueue", "-", *WHERE, stdin=text)
    assert "first may be sent at 2099-11-30T02:00:00.000Z (2099-11-30 10:00+08:00 here)" in done.err
    past = await shell.run(
        "enqueue", "-", *WHERE, "--again", "--not-before", "2020-01-01", stdin=b"img-00000003"
    )
    assert "which is past" in past.err
    text = b"image_id,not_before\nimg-00000004,9999-12-31T23:59:59Z\n"
    far = await shell.run("enqueue", "-", *WHERE, stdin=text)
    assert far.code == 0, far.err
    assert "first may be sent at 9999-12-31T23:59:59.000Z. A time" in far.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enqueue", "missing.csv"), "missing.csv"),
        (("enqueue",), "either a manifest or images"),
        (("enqueue", "--image", "img-00000001"), "Give it with --region"),
        (("show", "1"), "no store"),
        (("retry", "--all"), "no store"),
        (("status", "--config", "missing.toml"), "missing.toml"),
        (("run", "--rate", "-1"), "--rate"),
        (("run", "--verify", "maybe"), "--verify"),
        (("history", "--state", "lost"), "--state: 'lost'"),
        (("history", "--since", "yesterday"), "--since: 'yesterday'"),
        (("history", "--since", "0001-01-01T00:00+14:00"), "--since: '0001-01-01T00:00"),
        (("history", "--json", "--csv"), "--csv"),
        (("run", "--rate", "1e-12"), "0.001 at least"),
        (("run", "--rate", "fast"), "The flag --rate is 'fast'; it must be a number of requests"),
        (("run", "--rate", '"20"'), "The flag --rate has quotes around it."),
        (("run", "--time-limit", "nan"), "--time-limit"),
        (("run", "--time-limit", "inf"), "--time-limit"),
        (("run", "--time-limit", "1h"), "--time-limit '1h': must be a number of seconds"),
        (("enqueue", "--image", "img-00000001", *WHERE, "--batch", "\udcff"), "batch name"),
        (("enqueue", "--image", "img-00000001", *WHERE, "--batch", "a\nb"), "batch name"),
        (("enqueue", "--image", "img-00000001", *WHERE, "--profile", "\udcff"), "--profile"),
        (("enqueue", "--image", "img-00000001", *WHERE, "--profile", "a\x7f"), "--profile"),
    ],
)
async def test_invalid_input_exits_with_2_and_a_message(
    shell: Shell, words: tuple[str, ...], said: str
) -> None:
    """The message names the input; there is no traceback and nothing on stdout."""
    refused = await shell.run(*words)
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert refused.out == ""


@pytest.mark.parametrize(
    "words", [("status",), ("status", "--json"), ("history",), ("history", "--csv")]
)
async def test_a_missing_store_is_a_note(shell: Shell, words: tuple[str, ...]) -> None:
    """Nothing is printed on stdout, nothing is created, and the exit code is 0."""
    looked = await shell.run(*words)
    assert (looked.code, looked.out) == (0, "")
    assert looked.err.startswith(f"There is no store at {shell.folder / 'exports.db'} yet.")
    assert list(shell.folder.glob("exports.db*")) == []


async def test_a_missing_store_at_the_default_place_is_a_note_too(shell: Shell) -> None:
    """Without a database URL the sentence and the exit code are the same."""
    looked = await Shell(shell.folder, {"HOME": str(shell.folder)}).run("status")
    assert looked.code == 0, looked.err
    assert looked.err.startswith(f"There is no store at {shell.folder}")


@pytest.mark.parametrize("command", ["run", "status"])
async def test_a_batch_that_is_not_text_is_refused(shell: Shell, command: str) -> None:
    """The name of a batch may have bytes that are not UTF-8, as a filter value may."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    refused = await shell.run(command, "--batch", "\udcff")
    assert refused.code == 2
    assert r"'\udcff' is not a valid batch name" in refused.err
    assert "Traceback" not in refused.err


async def test_a_run_without_credentials_says_where_it_searched(shell: Shell) -> None:
    """The exit code is 6, and the message names the variables and files."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    bare = {k: v for k, v in shell.variables.items() if not k.startswith("TENCENTCLOUD")}
    refused = await Shell(shell.folder, bare).run("run")
    assert refused.code == 6
    assert "TENCENTCLOUD_SECRET_ID" in refused.err
    assert ".tccli" in refused.err


async def test_a_missing_certificate_file_is_named(shell: Shell) -> None:
    """The message names SSL_CERT_FILE and its value, and the exit code is 2."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    variables = {**shell.variables, "SSL_CERT_FILE": "/not/there.pem"}
    refused = await Shell(shell.folder, variables).run("run", "--cvm-endpoint", "https://cvm.test")
    assert refused.code == 2
    assert "SSL_CERT_FILE names /not/there.pem" in refused.err
    assert "Traceback" not in refused.err


async def test_plain_http_beyond_loopback_is_refused(shell: Shell) -> None:
    """The message names the setting that would allow it."""
    refused = await shell.run("run", "--cvm-endpoint", "http://cvm.example")
    assert refused.code == 2
    assert "ORCHESTRATOR_ALLOW_PLAIN_HTTP" in refused.err


async def test_a_run_without_jobs_needs_no_credentials(shell: Shell) -> None:
    """A run of an empty database exits with 0."""
    bare = Shell(shell.folder, {"ORCHESTRATOR_DATABASE_URL": str(shell.folder / "exports.db")})
    ended = await bare.run("run", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verified"] == ended.json["requests"] == 0


@pytest.mark.parametrize("command", ["run", "status"])
async def test_a_batch_that_does_not_exist_is_refused(shell: Shell, command: str) -> None:
    """A misspelled batch does not look like one that is done; the nearest is named."""
    for name in ("tonight", "another"):
        await shell.run("enqueue", "-", "--again", "--batch", name, stdin=manifest(1))
    ended = await shell.run(command, "--batch", "tonigth", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "No job has batch 'tonigth'.\n  The nearest is 'tonight'." in ended.err


@pytest.mark.parametrize("command", ["run", "status"])
async def test_a_batch_with_a_wildcard_is_refused(shell: Shell, command: str) -> None:
    """The message says where * is a wildcard, and the help that here it is none."""
    await shell.run("enqueue", "-", "--batch", "tonight", stdin=manifest(1))
    assert len((await shell.run("history", "--batch", "to*", "--json")).rows) == 1
    ended = await shell.run(command, "--batch", "to*")
    assert (ended.code, ended.out) == (2, "")
    assert "* is a wildcard only in filters, as of history. The nearest is 'tonight'." in ended.err
    assert "Only this batch; no wildcard." in (await shell.run(command, "--help")).out


async def test_a_run_of_a_batch_of_another_profile_is_refused(shell: Shell) -> None:
    """A run is refused, and the message names the profiles that have the batch.

    Commands that send nothing accept any profile.
    """
    for profile in ("b", "a c"):
        await shell.run(
            "enqueue", "-", "--again", "--batch", "x", "--profile", profile, stdin=manifest(1)
        )
    ended = await shell.run("run", "--batch", "x", "--profile", "other")
    assert (ended.code, ended.out) == (2, "")
    assert "Batch 'x' has no job of profile 'other'.\n  Use --profile 'a c' or --profile b." in (
        ended.err
    )
    assert (await shell.run("status", "--batch", "x")).code == 0


async def test_history_of_a_batch_that_does_not_exist_is_empty(shell: Shell) -> None:
    """A filter that matches nothing is no error, but stderr says so."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    ended = await shell.run("history", "--batch", "tonigth", "--json")
    assert (ended.code, ended.out, ended.err) == (0, "", "No job matches.\n")


async def test_failed_jobs_exit_with_3_and_show_their_remedy(
    shell: Shell, cloud: Simulator
) -> None:
    """A refused image has code and remedy in the history; the others are verified."""
    cloud.change(images={"img-00000001": ImageSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(3))
    ended = await shell.run("run")
    assert ended.code == 3
    assert "history --state failed" in ended.out
    (row,) = (await shell.run("history", "--state", "failed", "--json")).rows
    assert row["code"] == "InvalidImageId.NotFound"
    assert row["remedy"]


async def test_a_narrow_terminal_shows_errors_in_full(shell: Shell, cloud: Simulator) -> None:
    """`history` and `show` print the whole remedy in lines that fit the terminal."""
    cloud.change(images={"img-00000001": ImageSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(2))
    assert (await shell.run("run")).code == 3
    (failed,) = (await shell.run("history", "--state", "failed", "--json")).rows
    shown = await shell.run_at_terminal("history", columns=60)
    assert all(len(line) <= 60 for line in shown.splitlines())
    assert f"{failed['code']}: {failed['remedy']}" in " ".join(shown.split())
    shown = await shell.run_at_terminal("show", str(failed["id"]), columns=60)
    assert failed["remedy"] in " ".join(shown.split())
    assert all(len(line) <= 60 for line in shown.splitlines())


async def test_history_fits_a_terminal_without_chinese_characters(shell: Shell) -> None:
    """Their escapes are wider than they are, so they are cut as they are shown."""
    shell = Shell(shell.folder, {**shell.variables, "PYTHONIOENCODING": "latin-1"})
    await shell.run("enqueue", "-", "--batch", "华东区夜间镜像导出批次", stdin=manifest(1))
    _, row = (await shell.run_at_terminal("history", columns=80)).splitlines()
    assert row.split()[2:4] == ["\\u534e\\u4e1c\\u533a\\~", "img-00000000"]
    assert len(row) <= 80


async def test_a_missing_bucket_is_exit_code_6(shell: Shell, cloud: Simulator) -> None:
    """The summary names the code and says that action is required."""
    cloud.change(buckets={"backup-1250000000": BucketSettings(missing=True)})
    await shell.run("enqueue", "-", stdin=manifest(3))
    ended = await shell.run("run")
    assert ended.code == 6
    assert "Action required: bucket" in ended.out
    assert "InvalidParameterValue.BucketNotFound" in ended.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_first_signal_waits_for_requests_in_flight(
    shell: Shell, cloud: Simulator, number: signal.Signals, code: int
) -> None:
    """Nothing more is sent, no job becomes unknown, and the next run continues."""
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


async def test_run_at_a_terminal_shows_progress_and_notes(shell: Shell) -> None:
    """Notes are printed above the live display, and the summary below it."""
    await shell.run("enqueue", "-", stdin=manifest(3))
    variables = {**shell.variables, "TERM": "xterm", "COLUMNS": "80"}
    printed = await to_thread.run_sync(at_terminal, shell.folder, "run", variables)
    assert b"Keys: TENCENTCLOUD_SECRET_ID" in printed
    assert b"/3" in printed  # the last state need not be drawn: the summary shows it
    assert b"3 verified of 3" in printed


async def test_a_second_signal_ends_the_run_at_once(shell: Shell, cloud: Simulator) -> None:
    """Requests in flight are not waited for; their jobs stay in state sending."""
    cloud.set_faults(Fault("hang", action="ExportImages", after=True))
    await shell.run("enqueue", "-", stdin=manifest(2))
    async with shell.start("run", "--request-timeout", "600") as process:
        await wait_until(lambda: sum(entry.accepted for entry in cloud.ledger) == 2)
        process.send_signal(signal.SIGINT)
        # two signals that are pending at the same time would be delivered as one
        await wait_for_output(process, "Interrupt again")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert _states(shell)["sending"] == 2


def _states(shell: Shell) -> dict[str, int]:
    with sqlite3.connect(shell.folder / "exports.db") as connection:
        rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
    connection.close()
    return {"sending": 0, **dict(rows)}


async def test_csv_cells_with_formulas_are_escaped(shell: Shell) -> None:
    """A prefix that starts like a formula gets a quote in front."""
    text = b"image_id,region,bucket,prefix\nimg-00000001,ap-singapore,backup-1250000000,=1+1\n"
    await shell.run("enqueue", "-", stdin=text)
    listed = await shell.run("history", "--csv")
    (row,) = csv.DictReader(io.StringIO(listed.out))
    assert row["prefix"] == "'=1+1"


async def test_show_prints_attempts_objects_and_events(shell: Shell) -> None:
    """A job has its RequestId, objects and events, in text and in JSON."""
    await shell.run("enqueue", "-", stdin=manifest(1))
    await shell.run("run")
    details = (await shell.run("show", "1", "--json")).json
    assert [event["kind"] for event in details["events"]] == [
        "enqueued",
        "claimed",
        "accepted",
        "verified",
    ]
    assert details["attempts_made"][0]["request_id"] == details["request_id"]
    assert all(found["size"] > 0 for found in details["objects"])
    shown = await shell.run("show", details["tag"])
    assert str(details["task_id"]) in shown.out


async def test_not_before_is_listed_and_shown(shell: Shell) -> None:
    """It is kept while the job changes; a person reads it in both zones."""
    shell = Shell(shell.folder, {**shell.variables, "TZ": "XST-8"})
    text = b"image_id,not_before\nimg-00000001,2099/11/30 2:00\nimg-00000002,\n"
    await shell.run("enqueue", "-", *WHERE, stdin=text)
    moments = ["2099-11-30T02:00:00.000Z", None]
    for number, moment in enumerate(moments, 1):
        assert (await shell.run("show", str(number), "--json")).json["not_before"] == moment
    assert [row["not_before"] for row in (await shell.run("history", "--json")).rows] == moments[
        ::-1
    ]
    listed = csv.DictReader(io.StringIO((await shell.run("history", "--csv")).out))
    assert [row["not_before"] for row in listed] == ["", moments[0]]
    shown = (await shell.run("show", "1")).out
    assert "send      not before 2099-11-30T02:00:00.000Z (2099-11-30 10:00+08:00 here)" in shown
    assert "not before" not in (await shell.run("show", "2")).out


async def test_secrets_are_neither_stored_nor_printed(shell: Shell) -> None:
    """The secret key is in no file that a run leaves and in no output."""
    await shell.run("enqueue", "-", stdin=manifest(2))
    ended = await shell.run("run")
    secret = shell.variables["TENCENTCLOUD_SECRET_KEY"]
    assert secret not in ended.out + ended.err
    for path in shell.folder.iterdir():
        assert secret.encode() not in path.read_bytes(), path


async def test_db_upgrade_creates_and_confirms_the_database(shell: Shell) -> None:
    """The first call creates the tables, the second finds them up to date."""
    made = await shell.run("db", "upgrade")
    again = await shell.run("db", "upgrade")
    assert (made.code, again.code) == (0, 0)
    assert "new → " in made.out
    assert "already up to date" in again.out


@pytest.mark.parametrize("command", [("enqueue", "-"), ("run",)])
async def test_a_lock_file_that_is_a_symbolic_link_is_refused(
    shell: Shell, command: tuple[str, ...]
) -> None:
    """The message names the link and says what to do; its target is unchanged."""
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
