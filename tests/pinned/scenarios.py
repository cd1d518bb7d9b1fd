"""The scenarios: what is done at the command line, and which parts of the result are compared."""

from collections.abc import Iterable
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

from tests.pinned.steps import (
    ACCEPTED_EXPORTS,
    EVENTS,
    EXIT_CODES,
    FINAL_STATES,
    HISTORY,
    LOOKUPS,
    OTHER_REQUESTS,
    OUTPUT,
    PARTS,
    REQUESTS,
    ChangeSimulator,
    Command,
    Scenario,
    SendSignal,
    StartInBackground,
    WaitForExit,
    WaitForOutput,
    WaitForRequests,
)

REGION, OTHER_REGION = "ap-singapore", "ap-tokyo"
BUCKET, OTHER_BUCKET = "backup-1250000000", "archive-1250000000"
FAR = "2099-01-01T00:00:00Z"

OLDER_STORE = Path(__file__).with_name("older_store.sql").read_text(encoding="utf-8")
"""A store of the first schema: jobs that are queued, verified and failed."""

SLOW_EXPORTS = {"duration": {"seconds": 200}}
LATER = ChangeSimulator({"skew": 210, "duration": {"seconds": 0.3}})
"""Let the simulator's clock pass the end of slow exports."""

NO_FAULTS = ChangeSimulator({"faults": [], "codes": []})
WITHOUT_KEYS = {"TENCENTCLOUD_SECRET_ID": None, "TENCENTCLOUD_SECRET_KEY": None}


def image(number: int) -> str:
    """Return the id of an image."""
    return f"img-{number:08d}"


def images(first: int, last: int) -> list[str]:
    """Return the ids of these images, both ends included."""
    return [image(number) for number in range(first, last + 1)]


def manifest(image_ids: Iterable[str], *, region: str = REGION, bucket: str = BUCKET) -> str:
    """Return a CSV manifest with a row for each image."""
    rows = "".join(f"{one},{region},{bucket}\n" for one in image_ids)
    return f"image_id,region,bucket\n{rows}"


def fault(kind: str, number: int, **more: Any) -> dict[str, Any]:
    """Return a fault of the first ExportImages of an image."""
    once = {"action": "ExportImages", "images": [image(number)], "times": 1}
    return {"kind": kind, **once, **more}


def refusal(code: str, number: int, **more: Any) -> dict[str, Any]:
    """Return a refusal of the first ExportImages of an image."""
    return {"code": code, "images": [image(number)], "times": 1, **more}


def without(*parts: str) -> frozenset[str]:
    """Return all parts but these."""
    return frozenset(PARTS) - set(parts)


NEXT_LOOK_LATER = {"ORCHESTRATOR_VERIFY_INTERVAL": "30"}
"""For a run that ends with an unknown job: whether it counts as left depends on whether its next
look is due at that very moment, so none is due for long."""

INVARIANT = frozenset({EXIT_CODES, FINAL_STATES, ACCEPTED_EXPORTS})
"""What is left where processes that are killed or run side by side decide by their speed."""

ENQUEUE = (
    Scenario(
        "enqueue-csv",
        cloud=None,
        files={
            "jobs.csv": "\ufeffbucket,format,image_id,region,prefix,only_root_disk,role_name,"
            "priority,not_before\r\n"
            f"{BUCKET},QCOW2,{image(1)},{REGION},nightly/a,true,Exporter,5,{FAR}\r\n"
            "\r\n"
            f"{BUCKET},,{image(2)},{REGION},,,,,\r\n"
            f'{OTHER_BUCKET},vhd,{image(3)},{OTHER_REGION},"=1+1",no,,-3,2099-01-01\r\n'
            f"{BUCKET},VMDK,{image(4)},me-saudi-arabia,,0,,, \r\n",
        },
        steps=(
            Command("enqueue jobs.csv --batch one --json"),
            Command("enqueue jobs.csv"),
            Command("history --json"),
            Command("history --csv"),
            Command("history"),
            Command("show 1 --json"),
            Command("show {tag:3} --json"),
            Command("show 1"),
            Command("status"),
            Command("status --json"),
            Command("status --batch one --json"),
        ),
        compare=without(EVENTS),
    ),
    Scenario(
        "enqueue-other-forms",
        cloud=None,
        files={
            "lines.jsonl": f'{{"image_id": "{image(1)}", "region": "{REGION}", '
            f'"bucket": "{BUCKET}", "priority": 7, "only_root_disk": true}}\n\n'
            f'{{"image_ids": ["{image(2)}", "{image(3)}"], "region": "{REGION}", '
            f'"bucket": "{BUCKET}", "format": "vmdk"}}\n',
            "array.json": f'[{{"image_id": "{image(4)}"}},\n {{"image_id": "{image(5)}", '
            f'"prefix": "a/b"}}]',
            "several.csv": f"image_ids,bucket\n{image(6)};{image(7)},{OTHER_BUCKET}\n",
        },
        steps=(
            Command("enqueue lines.jsonl --batch lines --json"),
            Command(f"enqueue array.json --region {REGION} --bucket {BUCKET} --json"),
            Command("enqueue several.csv --json", variables={"TENCENTCLOUD_REGION": OTHER_REGION}),
            Command(f"enqueue - --json --region {REGION} --bucket {BUCKET}", stdin="image_id\n"),
            Command("enqueue - --batch stdin --json", stdin=manifest(images(8, 9))),
            Command(
                f"enqueue --image {image(10)} --image {image(11)} --region {REGION} "
                f"--bucket {BUCKET} --format qcow2 --prefix by-flag --only-root-disk "
                f"--role-name Exporter --priority 9 --not-before {FAR} --batch flags --json"
            ),
            Command(
                f"enqueue --image {image(12)} --region {REGION} --bucket {BUCKET} "
                "--prefix golden --exact-names --profile other --json"
            ),
            Command(f"enqueue --image {image(13)} --bucket {BUCKET}"),
            Command(f"enqueue --image {image(13)} --region {REGION}"),
            Command(
                f"enqueue --image nonsense --image {image(14)} --region {REGION} "
                f"--bucket {BUCKET} --skip-invalid --json"
            ),
            Command("show {tag:2} --json"),
        ),
        compare=without(EVENTS),
    ),
    Scenario(
        "enqueue-duplicates",
        cloud={"images": {image(3): {"missing": True}}},
        files={"jobs.csv": manifest(images(1, 3))},
        steps=(
            Command("enqueue jobs.csv --batch one --json"),
            Command("enqueue jobs.csv --batch two --json"),
            Command("enqueue jobs.csv --format QCOW2 --batch two --json"),
            Command("enqueue jobs.csv --prefix p --batch two --json"),
            Command("run --batch one --json"),
            Command("enqueue jobs.csv --json"),
            Command("enqueue jobs.csv --again --batch again --json"),
            Command("run --json"),
            Command("history --json --batch two", only=("id", "state", "attempts")),
        ),
        compare=without(EVENTS),
    ),
    Scenario(
        "enqueue-invalid",
        cloud=None,
        files={
            "bad.csv": f"image_id,region,bucket,format,priority\nimg-1,{REGION},{BUCKET},RAW,1\n"
            f"{image(1)},x,backup-1250000000,ISO,many\n{image(2)},{REGION},backup,RAW,1001\n",
            "mixed.csv": f"image_id,region,bucket,note\nimg-1,{REGION},{BUCKET},x\n"
            f"{image(2)},{REGION},{BUCKET},y\n{image(2)},{REGION},{BUCKET},again\n",
            "nothing.csv": f"image_id,region,bucket\nimg-1,{REGION},{BUCKET}\n",
            "unknown.csv": f"image_id,region,bucket,formt\n{image(1)},{REGION},{BUCKET},RAW\n",
            "both.csv": f"image_id,image_ids,region,bucket\n{image(1)},{image(2)},{REGION},"
            f"{BUCKET}\n",
            "no-header.csv": f"{image(1)},{REGION},{BUCKET}\n",
            "twice.csv": f"image_id,region,region,bucket\n{image(1)},{REGION},x,{BUCKET}\n",
            "semicolons.csv": f"image_id;region;bucket\n{image(1)};{REGION};{BUCKET}\n",
            "only-header.csv": "image_id,region,bucket\n",
            "no-region.csv": f"image_id,bucket\n{image(1)},{BUCKET}\n",
            "quote.csv": f'image_id,region,bucket\n"{image(1)},{REGION},{BUCKET}\n{image(2)}\n',
            "empty.csv": "",
            "utf16.csv": manifest(images(1, 2)).encode("utf-16"),
            "bad.jsonl": f'{{"image_id": "{image(1)}", "region": "{REGION}"\n',
            "wrong.jsonl": f'{{"image_id": 5, "region": "{REGION}", "bucket": "{BUCKET}"}}\n',
            "number.json": "[1]",
        },
        steps=(
            *(
                Command(f"enqueue {name} --json")
                for name in (
                    *("bad.csv", "mixed.csv", "nothing.csv", "unknown.csv", "both.csv"),
                    *("no-header.csv", "twice.csv", "semicolons.csv", "only-header.csv"),
                    *("no-region.csv", "quote.csv", "empty.csv", "utf16.csv", "bad.jsonl"),
                    *("wrong.jsonl", "number.json", "missing.csv", "."),
                )
            ),
            Command("status"),
            Command("enqueue nothing.csv --skip-invalid --json"),
            Command("enqueue unknown.csv --skip-invalid --json"),
            Command("enqueue mixed.csv --skip-invalid --json"),
            Command("enqueue both.csv --skip-invalid --json"),
            Command("enqueue wrong.jsonl --skip-invalid --json"),
        ),
    ),
)

USAGE = (
    Scenario(
        "usage-errors-without-a-store",
        cloud=None,
        files={
            "jobs.csv": manifest(images(1, 2)),
            "unknown.toml": "verfy = 'off'\n",
            "broken.toml": "verify = off\n",
            "bad.toml": "rate = 'fast'\n",
            "scenario.json": '{"capp": 3}',
        },
        steps=tuple(
            map(
                Command,
                (
                    *(
                        "",
                        "--help",
                        "--version",
                        "run --help",
                        "db",
                        "launch",
                        "enqueue --nonsense",
                    ),
                    *("enqueue", f"enqueue jobs.csv --image {image(1)}", "enqueue missing.csv"),
                    *("status", "history --json", "show 1 --json", "cancel --all", "retry --all"),
                    "resolve 1 --as absent --why x",
                    *("run --rate -1", "run --verify maybe", "run --concurrency 0"),
                    *("run --verify-interval 0.1", "run --resend sometimes", "run --time-limit x"),
                    *("run --cvm-endpoint http://cvm.example", "run --site mars"),
                    *("status --config missing.toml", "status --config unknown.toml"),
                    *("status --config broken.toml", "status --config bad.toml"),
                    *("status --database-url mysql://x/y", "status --database-url jobs.csv"),
                    *("history --state lost", "history --since soon", "history --json --csv"),
                    *("simulate --scenario scenario.json", "simulate --ledger no/such/folder"),
                    *("run --json --database-url no/such/folder/exports.db", "run --json"),
                ),
            )
        ),
    ),
    Scenario(
        "usage-errors-with-a-store",
        cloud=None,
        files={"jobs.csv": manifest(images(1, 2))},
        variables={"TENCENTCLOUD_SECRET_ID": "AKIDfake"},
        steps=(
            Command("enqueue jobs.csv --json"),
            *map(
                Command,
                (
                    *("show 99 --json", "show nonsense", "show", "resolve 99 --as absent --why x"),
                    *("resolve 1 --as absent --why x", "resolve 1 --as maybe --why x"),
                    *("resolve 1 --as absent", "resolve 1 --as absent --why ' '"),
                    *("cancel", "cancel --batch none", "retry", "retry --state verified"),
                    *("retry --state queued", "history --limit -1", "history --job 99 --json"),
                    *("enqueue jobs.csv --priority 5000 --again", "enqueue jobs.csv --format iso"),
                    *("run --batch none", "run", "run --profile a/b"),
                    "status --batch none --json",
                ),
            ),
            Command("run --json", variables={"SSL_CERT_FILE": "/not/there.pem"}),
            Command("status --json", variables={"ORCHESTRATOR_RAET": "5"}),
            Command("status --json", variables={"ORCHESTRATOR_RATE": "fast"}),
        ),
    ),
    Scenario(
        "stores",
        cloud=None,
        files={"broken.db": "this is no database, but it is long enough to look like one\n" * 20},
        stores={
            "newer.db": "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);"
            "INSERT INTO alembic_version VALUES ('9999');"
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY); CREATE TABLE job_images (id INTEGER);"
            "CREATE TABLE attempts (id INTEGER);",
            "foreign.db": "CREATE TABLE jobs (id INTEGER PRIMARY KEY);",
        },
        steps=(
            Command("db upgrade"),
            Command("db upgrade"),
            Command("status --json"),
            Command("history --json"),
            Command("history --csv"),
            Command("history"),
            Command("run --json", variables=WITHOUT_KEYS),
            *(
                Command(f"{words} --database-url {name}.db")
                for name in ("broken", "newer", "foreign")
                for words in ("status", "db upgrade", "run")
            ),
        ),
    ),
    Scenario(
        "older-store",
        seed=2,  # of the ids that the simulator gives: those in the store come from another seed
        stores={"exports.db": OLDER_STORE},
        files={"jobs.csv": manifest(images(1, 4))},
        steps=(
            Command("status"),
            Command("history --json"),
            Command("enqueue jobs.csv"),
            Command("run"),
            Command("db upgrade"),
            Command("status --json"),
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("retry --state failed"),
            Command("run --json"),
        ),
    ),
)

RUN = (
    Scenario(
        "run",
        cloud={"images": {image(2): {"sizes": [50, 100]}, image(4): {"sizes": [20]}}},
        files={
            "jobs.csv": "image_id,region,bucket,format,prefix\n"
            f"{image(1)},{REGION},{BUCKET},QCOW2,\n{image(2)},{REGION},{BUCKET},RAW,nightly/\n"
            f"{image(3)},{OTHER_REGION},{OTHER_BUCKET},VHD,a-b\n"
            f"{image(4)},{OTHER_REGION},{OTHER_BUCKET},VMDK,\n"
        },
        steps=(
            Command("enqueue jobs.csv --batch tonight --json"),
            Command("run --json"),
            Command("status --json"),
            Command("show 1 --json"),
            Command("show {tag:2} --json"),
            Command("history --json"),
            Command("history --csv"),
            Command("run --json"),
            Command("run"),
            Command("enqueue jobs.csv --json"),
        ),
    ),
    Scenario(
        "run-at-the-default-rate",
        files={"jobs.csv": manifest(images(1, 12))},
        variables={"ORCHESTRATOR_RATE": "20", "ORCHESTRATOR_VERIFY_INTERVAL": "adaptive"},
        cloud={"limits": {"ExportImages": 20, "DescribeImages": 40}},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
        compare=without(EVENTS),
    ),
    Scenario(
        "batches",
        files={"one.csv": manifest(images(1, 2)), "two.csv": manifest(images(3, 4))},
        steps=(
            Command("enqueue one.csv --batch one --json"),
            Command("enqueue two.csv --batch two --json"),
            Command("run --batch two --json"),
            Command("status --json"),
            Command("status --batch one --json"),
            Command("run --batch tow --json"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "time-limit",
        cloud=SLOW_EXPORTS,
        files={"jobs.csv": manifest(images(1, 3))},
        steps=(
            Command("enqueue jobs.csv --batch slow --json"),
            Command(
                f"enqueue --image {image(4)} --region {REGION} --bucket {BUCKET} "
                f"--not-before {FAR} --batch later --json"
            ),
            Command("run --time-limit 3 --json"),
            Command("status --json"),
            Command("run --batch slow --time-limit 1"),
            LATER,
            Command("run --batch slow --json"),
            Command("run --time-limit 60 --json"),
            Command("run --time-limit 0 --json"),
        ),
    ),
    Scenario(
        "endpoint-out-of-reach",
        cloud=None,
        files={"jobs.csv": manifest(images(1, 2))},
        variables={
            "TENCENTCLOUD_SECRET_ID": "AKIDfake",
            "TENCENTCLOUD_SECRET_KEY": "fake-secret-key",
        },
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --time-limit 2 --json"),
        ),
    ),
    Scenario(
        "keys",
        files={"jobs.csv": manifest(images(1, 1))},
        steps=(
            Command("run --json", variables=WITHOUT_KEYS),
            Command("enqueue jobs.csv --json", variables=WITHOUT_KEYS),
            Command("run --json", variables=WITHOUT_KEYS),
            Command("run --json", variables={"TENCENTCLOUD_SECRET_KEY": "fake-mistyped"}),
            Command("run --json", variables={"TENCENTCLOUD_SECRET_ID": "AKIDfakenobody"}),
            Command("run --json", variables={"TENCENTCLOUD_TOKEN": "fake-stale-token"}),
            Command("run --json"),
        ),
        # how often the refused keys are tried
        compare=without(OTHER_REQUESTS),
    ),
    Scenario(
        "keys-of-roles",
        cloud={"instance_role": "Exporter"},
        files={"one.csv": manifest(images(1, 2)), "two.csv": manifest(images(3, 4))},
        steps=(
            Command("enqueue one.csv --json"),
            Command("run --json", variables=WITHOUT_KEYS),
            Command("enqueue two.csv --json"),
            Command(
                "run --json",
                variables={"TENCENTCLOUD_ROLE_ARN": "qcs::cam::uin/100000000001:roleName/Night"},
            ),
        ),
    ),
    Scenario(
        "settings",
        files={
            "one.csv": manifest(images(1, 1)),
            "two.csv": manifest(images(2, 2)),
            "three.csv": manifest(images(3, 3)),
            "off.toml": "verify = 'off'\nprofile = 'default'\n",
        },
        steps=(
            Command("enqueue one.csv --batch one --json"),
            Command("run --config off.toml --json"),
            Command("enqueue two.csv --batch two --json"),
            Command(
                "run --verify off --config off.toml --batch two --json",
                variables={"ORCHESTRATOR_VERIFY": "auto"},
            ),
            Command("history --json", only=("id", "state", "reason")),
            Command(
                "run --config off.toml --batch one --json",
                variables={"ORCHESTRATOR_VERIFY": "auto"},
            ),
            Command("enqueue three.csv --batch three --json"),
            Command("run --json", variables={"ORCHESTRATOR_CONFIG": "off.toml"}),
        ),
    ),
    Scenario(
        "profiles",
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(
            Command("enqueue jobs.csv --profile other --json"),
            Command("enqueue jobs.csv --json", variables={"ORCHESTRATOR_PROFILE": "third"}),
            Command("run --json"),
            Command("run --profile other --json"),
            Command("status --json"),
            Command("run --json", variables={"TCCLI_PROFILE": "third"}),
        ),
    ),
    Scenario(
        "history-filters",
        cloud={"images": {image(4): {"missing": True}}},
        files={
            "one.csv": manifest(images(1, 2)),
            "two.csv": manifest(images(3, 5), region=OTHER_REGION, bucket=OTHER_BUCKET),
        },
        steps=(
            Command("enqueue one.csv --batch one --json"),
            Command("enqueue two.csv --batch two --json"),
            Command("run --json"),
            Command(f"enqueue --image {image(6)} --region {REGION} --bucket {BUCKET} --json"),
            *(
                Command(f"history --json {words}", only=("id",))
                for words in (
                    *("--batch one --batch 't*'", "--batch none", "--state failed"),
                    *("--state 'ver*' --region ap-tokyo", "--region 'ap-*'"),
                    *(f"--bucket {OTHER_BUCKET}", f"--image {image(2)} --image '*{image(3)[-3:]}'"),
                    *("--code 'InvalidImageId.*'", "--task-id {task_id:3}"),
                    *("--job 2 --job {tag:1}", "--limit 2", "--limit 0"),
                    *("--since 2000-01-01", "--until 2000-01-01T00:00:00Z", f"--since {FAR}"),
                )
            ),
            Command("history --csv --state failed"),
            Command("history --csv --batch none"),
            Command("history --batch one"),
        ),
        compare=without(EVENTS),
    ),
    Scenario(
        "cancel-and-retry",
        files={"one.csv": manifest(images(1, 3)), "two.csv": manifest(images(4, 5))},
        steps=(
            Command("enqueue one.csv --batch one --json"),
            Command("enqueue two.csv --batch two --json"),
            Command("cancel --batch one --dry-run"),
            Command("status --json"),
            Command("cancel --job 1"),
            Command("cancel --job 1"),
            Command(f"cancel --image {image(4)}"),
            Command("run --batch one --json"),
            Command("cancel --all --dry-run"),
            Command("cancel --all"),
            Command("status --json"),
            Command("enqueue two.csv --batch three --json"),
            Command("retry --batch two --dry-run"),
            Command("retry --all"),
            Command("show 1 --json"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "demo",
        cloud=None,
        steps=(Command("demo --images 20"),),
    ),
)

REFUSED = (
    Scenario(
        "rate-refusals",
        cloud={
            "codes": [
                refusal("RequestLimitExceeded", 1),
                refusal("RequestLimitExceeded.UinLimitExceeded", 2, times=2),
                {"code": "RequestLimitExceeded", "action": "DescribeImages", "times": 1},
            ]
        },
        files={"jobs.csv": manifest(images(1, 4))},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
    ),
    Scenario(
        "export-cap",
        cloud={"cap": 1, "caps": {OTHER_REGION: 2}},
        files={
            "one.csv": manifest(images(1, 4)),
            "two.csv": manifest(images(5, 8), region=OTHER_REGION),
        },
        steps=(
            Command("enqueue one.csv --json"),
            Command("enqueue two.csv --json"),
            Command("run --json"),
        ),
        # how often the cap is met depends on when ends are seen
        compare=without(OUTPUT, EVENTS, REQUESTS, OTHER_REQUESTS),
    ),
    Scenario(
        "busy-images",
        cloud={
            "codes": [
                refusal("MutexOperation.TaskRunning", 1),
                refusal("InvalidParameterValue.InvalidImageState", 2, times=2),
                refusal("ResourceInUse", 4),
            ],
            "images": {image(3): {"state": "CREATEFAILED"}},
        },
        files={"jobs.csv": manifest(images(1, 5)), "again.csv": manifest(images(5, 5))},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("enqueue again.csv --format QCOW2 --json"),
            Command("run --json"),
            Command("show 3 --json"),
        ),
    ),
    Scenario(
        "permanent-errors",
        cloud={
            "images": {
                image(1): {"missing": True},
                image(2): {"encrypted": True},
                image(3): {"market": True},
                image(4): {"platform": "Windows"},
                image(5): {"sizes": [600]},
                image(6): {},
            },
            "codes": [
                refusal("InvalidParameterValue.InvalidImageOsName", 7, times=None),
                refusal("UnauthorizedOperation.ImageNotBelongToAccount", 8, times=None),
            ],
        },
        files={"jobs.csv": manifest(images(1, 8))},
        steps=(
            Command("enqueue jobs.csv --batch night --json"),
            Command("run --json"),
            Command("history --json --state failed", only=("id", "code", "attempts")),
            Command("show 2 --json"),
            Command("retry --code 'UnsupportedOperation.*' --dry-run"),
            ChangeSimulator({"images": {one: {} for one in images(1, 5)}, "codes": []}),
            Command("retry --code 'UnsupportedOperation.*'"),
            Command("run --json"),
            Command("retry --state failed"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "missing-role",
        cloud={"absent_roles": ["Exporter"]},
        files={
            "jobs.csv": "image_id,region,bucket,role_name\n"
            f"{image(1)},{REGION},{BUCKET},Exporter\n{image(2)},{REGION},{BUCKET},\n"
        },
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("status --json"),
            Command("show 1 --json"),
            Command("run"),
            ChangeSimulator({"absent_roles": []}),
            Command("run --json"),
        ),
    ),
    Scenario(
        "halted-buckets-and-regions",
        cloud={
            "buckets": {
                "missing-1250000000": {"missing": True},
                "locked-1250000000": {"deny": ["ExportImages"]},
                "elsewhere-1250000000": {"region": OTHER_REGION},
            }
        },
        files={
            "jobs.csv": "image_id,region,bucket\n"
            f"{image(1)},{REGION},missing-1250000000\n{image(2)},{REGION},locked-1250000000\n"
            f"{image(3)},{REGION},elsewhere-1250000000\n{image(4)},ap-atlantis,{BUCKET}\n"
            f"{image(5)},{REGION},{BUCKET}\n"
        },
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("history --json", only=("id", "state", "reason", "code", "attempts")),
            ChangeSimulator(
                {
                    "buckets": {
                        f"{name}-1250000000": {} for name in ("missing", "locked", "elsewhere")
                    }
                }
            ),
            Command("run --json"),
            Command("cancel --region ap-atlantis"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "denied-account",
        cloud={"codes": [{"code": "UnauthorizedOperation"}]},
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            NO_FAULTS,
            Command("run --json"),
        ),
        # two denials halt the account; which job meets the second one depends on chance
        compare=without(OUTPUT, EVENTS, REQUESTS),
    ),
    Scenario(
        "undescribed-images",
        cloud={"codes": [{"code": "UnauthorizedOperation", "action": "DescribeImages"}]},
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
    ),
    Scenario(
        "quota",
        cloud={"codes": [refusal("LimitExceeded.BucketQuota", 1, times=None)]},
        files={
            "one.csv": manifest(images(1, 1)),
            "two.csv": manifest(images(2, 3), region=OTHER_REGION),
        },
        variables={"ORCHESTRATOR_QUOTA_WAIT": "1.5"},
        steps=(
            Command("enqueue one.csv --json"),
            Command("enqueue two.csv --json"),
            Command("run --json"),
            Command("history --json", only=("id", "state", "code", "attempts")),
            NO_FAULTS,
            Command("run"),
        ),
        # how often the quota is met within its time depends on chance
        compare=without(EVENTS, REQUESTS, OUTPUT),
    ),
)

LOST = (
    Scenario(
        "lost-answers",
        cloud={
            "faults": [
                fault("reset", 1, after=True),
                fault("half", 2),
                fault("gateway", 3, after=True, status=502),
            ]
        },
        files={"jobs.csv": manifest(images(1, 5))},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            # not the events: whether an upload or its object is found depends on the speed
            Command("show 1 --json", only=("state", "reason", "attempts", "attempts_made")),
        ),
    ),
    Scenario(
        "strange-answers",
        cloud={
            "faults": [
                fault("html", 1, after=True),
                fault("bare", 2, after=True),
                fault("hang", 3, after=True),
            ]
        },
        files={"jobs.csv": manifest(images(1, 4))},
        variables={"ORCHESTRATOR_REQUEST_TIMEOUT": "2"},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
    ),
    Scenario(
        "lost-requests",
        files={"one.csv": manifest(images(1, 2)), "two.csv": manifest(images(3, 5))},
        steps=(
            Command("enqueue one.csv --json"),
            Command("run --json"),
            ChangeSimulator({"faults": [fault("reset", 3), fault("gateway", 4, status=504)]}),
            Command("enqueue two.csv --json"),
            Command("run --json"),
            Command("show 3 --json"),
        ),
    ),
    Scenario(
        "lost-request-to-an-unproven-bucket",
        cloud={"faults": [fault("reset", 1)]},
        files={"jobs.csv": manifest(images(1, 1))},
        steps=(
            Command("enqueue jobs.csv --json"),
            # a run that ends by itself may do so before it has noted why it does not send again
            StartInBackground("first", "run --forever"),
            WaitForRequests(12, action="GetBucket"),
            SendSignal("first", SIGTERM),
            WaitForExit("first"),
            Command("run --json", variables=NEXT_LOOK_LATER),
            Command("show 1 --json"),
            Command("show 1"),
            Command("status --json"),
            Command("enqueue jobs.csv --json"),
            Command("cancel --job 1"),
            Command("retry --job 1"),
            Command("resolve 1 --as absent --why 'nothing in the console'"),
            Command("resolve 1 --as absent --why 'nothing in the console'"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "never-resent",
        cloud={"faults": [fault("reset", 1), fault("reset", 2)]},
        files={"jobs.csv": manifest(images(1, 2))},
        variables={"ORCHESTRATOR_RESEND": "never"},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json", variables=NEXT_LOOK_LATER),
            Command("resolve 1 --as absent --why 'nothing in the console'"),
            Command("resolve {tag:2} --as accepted --why 'a task is listed'"),
            Command("status --json"),
            Command("run --json", variables={"ORCHESTRATOR_EXPORT_DEADLINE": "1"}),
            Command("retry --state failed"),
            Command("run --json", variables={"ORCHESTRATOR_RESEND": "always"}),
        ),
    ),
    Scenario(
        "always-resent",
        cloud={"faults": [{"kind": "reset", "action": "ExportImages"}]},
        files={"jobs.csv": manifest(images(1, 1))},
        variables={"ORCHESTRATOR_RESEND": "always", "ORCHESTRATOR_MAX_ATTEMPTS": "2"},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            NO_FAULTS,
            Command("enqueue jobs.csv --json"),
            Command("retry --state failed"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "unclear-codes",
        files={"one.csv": manifest(images(1, 1)), "two.csv": manifest(images(2, 5))},
        steps=(
            Command("enqueue one.csv --json"),
            Command("run --json"),
            ChangeSimulator(
                {
                    "codes": [
                        refusal("InternalError", 2),
                        refusal("InternalError", 3, after=True),
                        refusal("Novelty.OfTheDay", 4, after=True),
                    ]
                }
            ),
            Command("enqueue two.csv --json"),
            Command("run --json"),
        ),
    ),
)

DELIVERY = (
    Scenario(
        "verification-off",
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --verify off --json"),
            Command("status --json"),
            Command("run --verify off --json"),
        ),
    ),
    Scenario(
        "unreadable-bucket",
        cloud={"buckets": {BUCKET: {"deny": ["HeadObject", "GetBucket", "ListMultipartUploads"]}}},
        files={"one.csv": manifest(images(1, 2)), "two.csv": manifest(images(3, 3))},
        steps=(
            Command("enqueue one.csv --json"),
            Command("run --json"),
            Command("status --json"),
            Command("run --verify required --json"),
            ChangeSimulator({"buckets": {BUCKET: {}}}),
            Command("enqueue two.csv --json"),
            Command("run --verify required --json"),
        ),
    ),
    Scenario(
        "unlistable-bucket",
        cloud={
            "buckets": {BUCKET: {"deny": ["GetBucket", "ListMultipartUploads"]}},
            "faults": [fault("reset", 1, after=True)],
        },
        files={"jobs.csv": manifest(images(1, 1))},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("resolve 1 --as accepted --why 'the console lists its task'"),
            ChangeSimulator({"buckets": {BUCKET: {}}}),
            Command("run --json"),
        ),
    ),
    Scenario(
        "exact-names",
        files={"one.csv": manifest(images(1, 1)), "two.csv": manifest(images(2, 2))},
        steps=(
            Command("enqueue one.csv --exact-names --prefix golden --json"),
            Command("run --json"),
            Command("enqueue one.csv --exact-names --prefix golden --json"),
            Command("enqueue one.csv --exact-names --prefix golden --again --json"),
            Command("run --json"),
            Command("show 2 --json"),
            ChangeSimulator({"faults": [fault("reset", 2)]}),
            Command("enqueue two.csv --exact-names --json"),
            Command("run --json", variables=NEXT_LOOK_LATER),
            Command("resolve 3 --as absent --why 'nothing there'"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "disks-and-images-of-one-request",
        cloud={
            "images": {
                image(1): {"sizes": [50, 100, 20]},
                image(2): {"sizes": [50, 100]},
                image(3): {"sizes": [20]},
            }
        },
        files={
            "jobs.csv": "image_ids,region,bucket,only_root_disk,format\n"
            f"{image(1)},{REGION},{BUCKET},true,QCOW2\n{image(1)},{REGION},{BUCKET},,RAW\n"
            f"{image(2)};{image(3)};{image(4)},{REGION},{BUCKET},no,VMDK\n"
        },
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("history --json", only=("id", "image_ids", "cos_paths", "task_id")),
            Command("show 3 --json"),
        ),
    ),
    Scenario(
        "delivered-in-part",
        cloud={"deliveries": [{"kind": "never", "images": [image(3)], "times": 1}]},
        files={
            "jobs.csv": "image_ids,region,bucket\n"
            f"{image(1)};{image(2)};{image(3)},{REGION},{BUCKET}\n{image(4)},{REGION},{BUCKET}\n"
        },
        variables={"ORCHESTRATOR_EXPORT_DEADLINE": "2"},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("retry --job 1 --dry-run"),
            Command("retry --job 1"),
            Command("retry --job 1"),
            Command("show 3 --json"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "not-delivered",
        cloud={
            "images": {image(3): {"sizes": [50, 100]}},
            "deliveries": [
                {"kind": "never", "images": [image(1)], "times": 1},
                {"kind": "empty", "images": [image(2)], "times": 1},
                {"kind": "partial", "images": [image(3)], "times": 1},
            ],
        },
        files={"jobs.csv": manifest(images(1, 4))},
        variables={"ORCHESTRATOR_EXPORT_DEADLINE": "2"},
        steps=(
            Command("enqueue jobs.csv --json"),
            Command("run --json"),
            Command("show 3 --json"),
            Command("enqueue jobs.csv --json"),
            Command("retry --state failed --dry-run"),
            Command("retry --state failed"),
            Command("run --json"),
        ),
    ),
    Scenario(
        "looks-that-fail",
        cloud={
            "faults": [
                {"kind": "gateway", "action": "cos", "times": 2, "status": 503},
                {"kind": "reset", "action": "cos", "times": 2},
                {"kind": "half", "action": "cos", "times": 2},
            ]
        },
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
        # which looks meet the faults
        compare=without(LOOKUPS),
    ),
    Scenario(
        "clock-an-hour-off",
        cloud={"skew": 3600},
        files={"jobs.csv": manifest(images(1, 2))},
        steps=(Command("enqueue jobs.csv --json"), Command("run --json")),
        # how often the wrong time is tried
        compare=without(OTHER_REQUESTS, LOOKUPS),
    ),
)

KILLED = (
    Scenario(
        "killed-before-the-answers",
        cloud={"faults": [{"kind": "latency", "action": "ExportImages", "seconds": 5}]},
        files={"jobs.csv": manifest(images(1, 4))},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run"),
            WaitForRequests(4, accepted=True),
            SendSignal("first", SIGKILL),
            WaitForExit("first"),
            Command("status --json"),
            NO_FAULTS,
            Command("run --json"),
            Command("show 1 --json"),
        ),
    ),
    Scenario(
        "killed-before-the-effect",
        cloud={"faults": [{"kind": "hang", "action": "ExportImages"}]},
        files={"jobs.csv": manifest(images(1, 3))},
        variables={"ORCHESTRATOR_RESEND": "always"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run"),
            WaitForRequests(3, fault="hang"),
            SendSignal("first", SIGKILL),
            WaitForExit("first"),
            NO_FAULTS,
            Command("run --json"),
        ),
        # the server's time is asked for with the first job that can be sent, whichever that is
        compare=without(OTHER_REQUESTS),
    ),
    Scenario(
        "killed-twice",
        cloud={"faults": [{"kind": "latency", "action": "ExportImages", "seconds": 1}]},
        files={"jobs.csv": manifest(images(1, 12))},
        variables={"ORCHESTRATOR_CONCURRENCY": "3"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run"),
            WaitForRequests(2, accepted=True),
            SendSignal("first", SIGKILL),
            WaitForExit("first"),
            StartInBackground("second", "run"),
            WaitForRequests(7, accepted=True),
            SendSignal("second", SIGKILL),
            WaitForExit("second"),
            Command("run --json"),
        ),
        # how far each process gets
        compare=INVARIANT,
    ),
    Scenario(
        "two-processes",
        cloud={"faults": [fault("reset", 3, after=True), fault("reset", 9, after=True)]},
        files={"jobs.csv": manifest(images(1, 20))},
        variables={"ORCHESTRATOR_RATE": "20"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run --json"),
            StartInBackground("second", "run --json"),
            WaitForExit("first"),
            WaitForExit("second"),
            Command("status --json"),
        ),
        # which of the two sends a job
        compare=INVARIANT | {HISTORY, REQUESTS},
    ),
    Scenario(
        "two-processes-one-killed",
        cloud={"faults": [{"kind": "latency", "action": "ExportImages", "seconds": 1}]},
        files={"jobs.csv": manifest(images(1, 16))},
        variables={"ORCHESTRATOR_CONCURRENCY": "2"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run"),
            StartInBackground("second", "run"),
            WaitForRequests(4, accepted=True),
            SendSignal("first", SIGKILL),
            WaitForExit("first"),
            WaitForExit("second"),
            Command("run"),
        ),
        # which of the two sends a job, and what the killed one was about
        compare=INVARIANT,
    ),
    Scenario(
        "interrupted",
        cloud={
            **SLOW_EXPORTS,
            "faults": [{"kind": "latency", "action": "ExportImages", "seconds": 3}],
        },
        files={"jobs.csv": manifest(images(1, 5))},
        variables={"ORCHESTRATOR_CONCURRENCY": "2"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run --json"),
            WaitForRequests(2, accepted=True),
            SendSignal("first", SIGINT),
            WaitForExit("first"),
            Command("status --json"),
            NO_FAULTS,
            LATER,
            Command("run --json"),
        ),
        # whether the first run still looks for uploads
        compare=without(LOOKUPS),
    ),
    Scenario(
        "interrupted-twice",
        cloud={"faults": [{"kind": "hang", "action": "ExportImages"}]},
        files={"jobs.csv": manifest(images(1, 2))},
        variables={"ORCHESTRATOR_RESEND": "always"},
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run --json"),
            WaitForRequests(2, fault="hang"),
            SendSignal("first", SIGINT),
            WaitForOutput("first"),
            SendSignal("first", SIGINT),
            WaitForExit("first"),
            Command("status --json"),
            NO_FAULTS,
            Command("run --json"),
        ),
        # as above
        compare=without(OTHER_REQUESTS),
    ),
    Scenario(
        "terminated-while-it-waits",
        cloud=SLOW_EXPORTS,
        files={
            "jobs.csv": "image_id,region,bucket,not_before\n"
            f"{image(1)},{REGION},{BUCKET},\n{image(2)},{REGION},{BUCKET},{FAR}\n"
        },
        steps=(
            Command("enqueue jobs.csv --json"),
            StartInBackground("first", "run --json"),
            WaitForRequests(1, action="GetBucket"),
            SendSignal("first", SIGTERM),
            WaitForExit("first"),
            Command("status --json"),
            LATER,
            Command("run --time-limit 60 --json"),
        ),
    ),
    Scenario(
        "forever",
        files={
            "one.csv": manifest(images(1, 1)),
            "two.csv": manifest(images(2, 2), region=OTHER_REGION),
        },
        steps=(
            Command("enqueue one.csv --json"),
            StartInBackground("first", "run --forever"),
            WaitForRequests(1, accepted=True),
            Command("enqueue two.csv --json"),
            WaitForRequests(2, accepted=True),
            WaitForRequests(2, action="HeadObject"),
            SendSignal("first", SIGTERM),
            WaitForExit("first"),
            Command("run"),
            Command("status --json"),
        ),
    ),
    Scenario(
        "misfortunes",
        seed=7,
        cloud={
            "cap": 6,
            "faults": [
                {"kind": "latency", "seconds": 0.02, "jitter": 0.05},
                {
                    "kind": "reset",
                    "action": "ExportImages",
                    "after": True,
                    "chance": 0.2,
                    "times": 3,
                },
                {"kind": "gateway", "action": "ExportImages", "chance": 0.2, "times": 3},
                {"kind": "half", "action": "cos", "chance": 0.05},
            ],
            "codes": [{"code": "RequestLimitExceeded", "chance": 0.1}],
        },
        files={"jobs.csv": manifest(images(1, 20))},
        variables={"ORCHESTRATOR_RESEND": "always"},
        steps=(Command("enqueue jobs.csv --json"), Command("run")),
        # the order of the requests decides whom a fault meets
        compare=INVARIANT,
    ),
)

SCENARIOS: tuple[Scenario, ...] = (
    *ENQUEUE,
    *USAGE,
    *RUN,
    *REFUSED,
    *LOST,
    *DELIVERY,
    *KILLED,
)
