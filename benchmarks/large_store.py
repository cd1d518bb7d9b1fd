"""``python -m benchmarks.large_store past|queue FILE COUNT``: write a large store."""

import sqlite3
import sys
from contextlib import closing

FIRST, SECONDS_APART = 1_700_000_000, 60
"""Job n is created n times so many seconds after the first time, a Unix time."""

_RARE = 7
"""Number of jobs with a rare region, code or state; they are among the oldest."""

_REGIONS = (
    "ap-singapore",
    "ap-tokyo",
    "ap-seoul",
    "ap-bangkok",
    "ap-jakarta",
    "eu-frankfurt",
    "na-ashburn",
    "na-siliconvalley",
)
_CODES = (
    "InvalidParameterValue.InvalidImageState",
    "InvalidImageId.NotFound",
    "Orchestrator.NotDelivered",
    "UnauthorizedOperation.ImageNotAllowed",
)

_JOBS = """
WITH RECURSIVE numbers (n) AS (
    SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count
),
plain AS (
    SELECT
        n,
        lower(hex(randomblob(6))) AS tag,
        printf('img-%08x', n) AS image,
        :first + n * :apart AS second,
        CASE WHEN n <= :rare THEN 'sa-saopaulo' ELSE region.name END AS region,
        CASE WHEN n % 20 = 3 AND n < 20 * :rare THEN 'Rare.Code' ELSE code.name END AS code,
        CASE
            WHEN :all_wait OR n > :count - 200 THEN 'queued'
            WHEN n > :count - 250 THEN 'accepted'
            WHEN n % 20 = 3 THEN 'failed'
            WHEN n <= :rare THEN 'unknown'
            WHEN n % 101 = 5 THEN 'cancelled'
            ELSE 'verified'
        END AS state
    FROM numbers
    JOIN names AS region ON region.kind = 'region' AND region.id = n * 7919 % 8
    JOIN names AS code ON code.kind = 'code' AND code.id = n / 20 % 4
),
timed AS (
    SELECT
        *,
        state NOT IN ('queued', 'cancelled') AS sent,
        state IN ('verified', 'accepted', 'failed') AS answered,
        state = 'failed' AS failed,
        strftime('%Y-%m-%d %H:%M:%f000', second, 'unixepoch') AS created,
        strftime('%Y-%m-%d %H:%M:%f000', second + 300, 'unixepoch') AS accepted,
        strftime('%Y-%m-%d %H:%M:%f000', second + 1200, 'unixepoch') AS ended
    FROM plain
)
INSERT INTO jobs (
    id, tag, object_prefix, batch, profile, region, bucket, format, prefix, exact_names,
    only_root_disk, priority, image_ids, fingerprint, state, reason, due_at, described_at,
    size_gib, attempt, attempts_charged, deferrals, maybe_applied,
    task_id, request_id, code, message, remedy,
    created_at, sent_at, accepted_at, finished_at
)
SELECT
    n, tag, 'nightly-' || tag, printf('night-%05d', n / 1000), 'default', region,
    'backup-' || region || '-1250000000', 'QCOW2', 'nightly', 0,
    0, 0, json_array(image), lower(hex(randomblob(32))), state,
    CASE state
        WHEN 'verified' THEN 'seen in the bucket'
        WHEN 'accepted' THEN 'exporting'
        WHEN 'failed' THEN 'not delivered'
        WHEN 'unknown' THEN 'answer lost'
        WHEN 'queued' THEN 'new'
        ELSE 'cancelled'
    END,
    created, created, 50, CASE WHEN sent AND n % 10 = 7 THEN 4 ELSE sent END, 0, 0, 0,
    CASE WHEN answered AND NOT (failed AND n % 40 = 3) THEN CAST(1000000000 + n * 37 AS TEXT) END,
    CASE WHEN sent THEN lower(hex(randomblob(16))) END,
    CASE WHEN failed THEN code END,
    CASE WHEN failed THEN 'The vendor refused to export the image ' || image || '.' END,
    CASE WHEN failed THEN 'Look at the image in the console, and retry the job.' END,
    created, CASE WHEN sent THEN accepted END, CASE WHEN answered THEN accepted END,
    CASE WHEN state IN ('verified', 'failed', 'cancelled') THEN ended END
FROM timed
"""

_IMAGES = """
INSERT INTO job_images (job_id, position, image_id)
SELECT id, 0, json_extract(image_ids, '$[0]') FROM jobs
"""

_ATTEMPTS = """
INSERT INTO attempts (
    job_id, number, owner, probe, claimed_at, signed_at, expires_at, answered_at, code, reaction,
    effect, http_status, request_id, task_id
)
SELECT jobs.id, made.id, 'worker-0123456789ab', 0, sent_at, sent_at, sent_at, accepted_at, code,
    CASE WHEN task_id IS NULL THEN 'fail' ELSE 'accept' END,
    CASE WHEN task_id IS NULL THEN 'no' ELSE 'yes' END, 200, request_id,
    CASE WHEN made.id = attempt THEN task_id END
FROM jobs JOIN names AS made ON made.kind = 'attempt' AND made.id <= attempt
ORDER BY jobs.id, made.id
"""

_SCOPES = (
    "INSERT INTO scopes (profile, region, misses) SELECT DISTINCT profile, region, 0 FROM jobs"
)

_OBJECTS = """
INSERT INTO objects (job_id, key, expected, cos_path, disk_gib, size, etag, seen_at)
SELECT id, object_prefix || '.qcow2', 1, '/' || object_prefix || '.qcow2', 50, 53687091200,
    fingerprint, finished_at
FROM jobs WHERE state IN ('verified', 'accepted')
"""

_EVENTS = """
INSERT INTO events (job_id, at, kind, from_state, to_state, attempt, actor, details)
SELECT jobs.id, created_at, name, 'queued', 'sending', 1, 'worker-0123456789ab', '{"n": 1}'
FROM jobs CROSS JOIN names WHERE kind = 'event' ORDER BY jobs.id
"""
_EVENTS_OF_A_JOB = ("enqueued", "claimed", "postponed", "accepted", "verified")


def write(path: str, count: int, *, all_wait: bool) -> None:
    """Write jobs into the tables of a new store, without waiting for the disk.

    Args:
        all_wait: all jobs are queued. Otherwise all but the newest have finished, and each has
            events and an object.
    """
    with closing(sqlite3.connect(path)) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -500000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TEMP TABLE names (kind, id, name, PRIMARY KEY (kind, id))")
        kinds = (("region", _REGIONS), ("code", _CODES), ("event", _EVENTS_OF_A_JOB))
        names = [(kind, n, name) for kind, listed in kinds for n, name in enumerate(listed)]
        names += [("attempt", number, "") for number in range(1, 5)]
        connection.executemany("INSERT INTO names VALUES (?, ?, ?)", names)
        times = {"first": FIRST, "apart": SECONDS_APART}
        connection.execute(_JOBS, {"count": count, "all_wait": all_wait, "rare": _RARE, **times})
        for statement in (
            *(_IMAGES, _SCOPES),
            *(() if all_wait else (_ATTEMPTS, _OBJECTS, _EVENTS)),
        ):
            connection.execute(statement)
        connection.commit()


if __name__ == "__main__":
    write(sys.argv[2], int(sys.argv[3]), all_wait=sys.argv[1] == "queue")
