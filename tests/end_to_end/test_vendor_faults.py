"""Faults of vendor and network: messages, final states, and the cloud's ledger.

With ``pytest -s`` the result of each case is printed as a table row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest

from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.job_states import JobState
from orchestrator.limits import admission
from orchestrator.model import Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.run_summary import RunResult
from orchestrator.simulator import BucketSettings, Fault, Refusal, Simulator
from orchestrator.verification import bucket_access, poller
from orchestrator.worker import image_describer
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    print_fault_row,
    read_jobs,
    read_ledger,
    wait_until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

EACH = 6
BATCH = make_image_ids(EACH)
OTHERS = make_image_ids(EACH, first=EACH)
OTHER_BUCKET = "other-1250000000"
OTHER_ROLE = "Exporter"
EXPORT = "ExportImages"
LOOKS = ("HeadObject", "GetBucket", "ListMultipartUploads")
POISONED = tuple(BATCH[:1])
UNTIL_HALTED = 12
"""Requests that are refused at most until a scope is halted in which others were accepted: four in
flight, then a probe each 0.75 s for at least 5 s, and one more if the last two are of one job."""

VERIFIED, ACCEPTED, FAILED = JobState.VERIFIED, JobState.ACCEPTED, JobState.FAILED
UNKNOWN, QUEUED = JobState.UNKNOWN, JobState.QUEUED

Change = Callable[[Simulator], None]
Counts = Mapping[JobState, int]


@dataclass(frozen=True)
class FaultCase:
    """One fault while six images are exported to each of two buckets, by two roles.

    Args:
        wrong: what is wrong from the start.
        later: what goes wrong each time that three more exports have begun.
        settings: of the program.
        ends: number of jobs in each state at the end; if the numbers depend on timing, only
            the states.
        exits: the exit code.
        stops: scopes that are halted at the end.
        says: words of the messages, in this order; empty if there must be no message.
        max_requests: maximum number of ExportImages requests.
        permission_timeout: seconds after which a denied bucket counts as unreadable.
    """

    wrong: Change | None = None
    later: tuple[Change, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    ends: Counts | frozenset[JobState] = field(default_factory=lambda: {VERIFIED: 2 * EACH})
    exits: int = 0
    stops: tuple[Scope, ...] = ()
    says: tuple[str, ...] = ()
    max_requests: int = 2 * EACH + 6
    permission_timeout: float = 20.0


def set_faults(*given: Fault) -> Change:
    """Return a change that sets network faults."""
    return lambda cloud: cloud.set_faults(*given)


def set_codes(*given: Refusal) -> Change:
    """Return a change that makes the service refuse."""
    return lambda cloud: cloud.change(codes=given)


def deny(*actions: str) -> Mapping[str, BucketSettings]:
    """Return bucket settings that deny these operations on the first bucket."""
    return {BUCKET: BucketSettings(deny=actions)}


def set_skew(seconds: float) -> Change:
    """Return a change that sets the vendor's clock ahead by these seconds."""
    return lambda cloud: cloud.change(skew=seconds)


def deny_reading_and_lose_answer(cloud: Simulator) -> None:
    """Deny reading of the first bucket, and lose an answer that concerns it."""
    lost = Fault("reset", action=EXPORT, after=True, images=tuple(BATCH), times=1)
    cloud.change(buckets=deny(*LOOKS), faults=(lost,))


ANSWERS = {
    "reset before it took effect": FaultCase(set_faults(Fault("reset", action=EXPORT, times=3))),
    "reset after it took effect": FaultCase(
        set_faults(Fault("reset", action=EXPORT, after=True, times=3))
    ),
    "half an answer": FaultCase(set_faults(Fault("half", action=EXPORT, times=3))),
    "an answer that comes late": FaultCase(
        set_faults(Fault("latency", action=EXPORT, seconds=0.5, times=6)),
        settings={"request_timeout": 60},
        max_requests=2 * EACH,
    ),
    "no answer at all": FaultCase(
        set_faults(Fault("hang", action=EXPORT, times=2)), settings={"request_timeout": 3}
    ),
    "no answer at all, although the export began": FaultCase(
        set_faults(Fault("hang", action=EXPORT, after=True, times=2)),
        settings={"request_timeout": 3},
    ),
    "a gateway's 502, and no export began": FaultCase(
        set_faults(Fault("gateway", action=EXPORT, times=3))
    ),
    "a gateway's 504, although the export began": FaultCase(
        set_faults(Fault("gateway", action=EXPORT, status=504, after=True, times=3))
    ),
    "a web page instead of an answer": FaultCase(
        set_faults(Fault("html", action=EXPORT, times=3)), says=("cannot be used",)
    ),
    "JSON without Response": FaultCase(
        set_faults(Fault("bare", action=EXPORT, after=True, times=3)), says=("cannot be used",)
    ),
    "InternalError, although the export began": FaultCase(
        set_codes(Refusal("InternalError", after=True, times=3))
    ),
    "a gateway that fails for a while": FaultCase(
        set_faults(Fault("gateway", action=EXPORT, times=9)),
        settings={"resend": "always"},  # a bucket may have no accepted export that proves absence
        says=("HTTP 502", "answers again"),
        max_requests=2 * EACH + 9,
    ),
    "a gateway that fails at first, then lost answers": FaultCase(
        set_faults(
            Fault("gateway", action="cvm", times=3),
            Fault("reset", action=EXPORT, after=True, times=2),
        ),
        settings={"export_deadline": 8},
    ),
}

RIGHTS = {
    "a clock that jumps again and again": FaultCase(
        later=(set_skew(600), set_skew(3600), set_skew(7200)), max_requests=60
    ),
    "a clock that cannot be corrected": FaultCase(
        later=(set_codes(Refusal("AuthFailure.SignatureExpire")),),
        ends=frozenset({VERIFIED, QUEUED}),
        exits=6,
        stops=(Scope.CLOCK,),
        says=("NTP",),
    ),
    "a role that is taken away": FaultCase(
        later=(lambda cloud: cloud.change(absent_roles=(OTHER_ROLE,)),),
        ends=frozenset({VERIFIED, QUEUED}),
        exits=6,
        stops=(Scope.ROLE,),
        max_requests=2 * EACH + UNTIL_HALTED,
        says=(OTHER_ROLE,),
    ),
    "a bucket that loses its write permission": FaultCase(
        later=(lambda cloud: cloud.change(buckets=deny(EXPORT)),),
        ends=frozenset({VERIFIED, QUEUED}),
        exits=6,
        stops=(Scope.BUCKET,),
        says=("permission to write",),
        max_requests=2 * EACH + UNTIL_HALTED,
    ),
    "a bucket that loses all permissions": FaultCase(
        later=(lambda cloud: cloud.change(buckets=deny(EXPORT, *LOOKS)),),
        ends=frozenset({VERIFIED, ACCEPTED, QUEUED}),
        exits=6,
        stops=(Scope.BUCKET,),
        says=("cannot be read", "permission to write"),
        max_requests=2 * EACH + UNTIL_HALTED,
        permission_timeout=1.0,
    ),
    "a bucket that loses its read permission, and a lost answer": FaultCase(
        later=(deny_reading_and_lose_answer,),
        ends=frozenset({VERIFIED, ACCEPTED, UNKNOWN}),
        exits=4,
        says=("cannot be read", "Grant"),
        permission_timeout=0.3,
    ),
    "a temporary 403 of COS": FaultCase(set_codes(Refusal("AccessDenied", action="cos", times=20))),
    "COS fails for a while": FaultCase(
        set_faults(Fault("gateway", action="cos", status=503, times=23)),
        says=("gives no answer", "answers again"),
    ),
}

POISON = {
    "one image whose requests get no answer": FaultCase(
        set_faults(Fault("reset", action=EXPORT, images=POISONED)),
        settings={"max_attempts": 7, "resend_after": 0},
        ends={VERIFIED: 2 * EACH - 1, FAILED: 1},
        exits=3,
        max_requests=2 * EACH + 8,
        says=("cannot be reached",),
    ),
    "one image that always gets InternalError": FaultCase(
        set_codes(Refusal("InternalError", images=POISONED)),
        settings={"max_attempts": 3, "resend_after": 0},
        ends={VERIFIED: 2 * EACH - 1, FAILED: 1},
        exits=3,
    ),
    "one image that cannot be described either": FaultCase(
        set_faults(Fault("reset", action="cvm", images=POISONED)),
        settings={"max_attempts": 3, "resend_after": 0},
        ends={VERIFIED: 2 * EACH - 1, FAILED: 1},
        exits=3,
        says=("DescribeImages has failed",),
    ),
}

WORLDS = ANSWERS | RIGHTS | POISON


@pytest.mark.parametrize("name", WORLDS)
async def test_fault_of_vendor_or_network(
    name: str, open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is exported twice, none is lost, and only what is affected is delayed."""
    world, said = WORLDS[name], list[str]()
    monkeypatch.setattr(bucket_access, "_MIN_REFUSED_FOR", world.permission_timeout)
    monkeypatch.setattr(admission, "_MAX_UNCHARGED", 1)
    monkeypatch.setattr(image_describer, "_IDLE", 0.1)
    monkeypatch.setattr(image_describer, "_GIVE_UP_AFTER", 1.0)
    monkeypatch.setattr(poller, "_AFTER_FAILURE", timedelta(seconds=0.3))
    if world.wrong is not None:
        world.wrong(cloud)
    if world.later:
        cloud.change(limits={EXPORT: 20})
    settings = {"concurrency": 4, "resend_after": 0.5, **world.settings}
    async with open_store(notify=said.append, **settings) as orchestrator:
        await orchestrator.enqueue(
            make_requests_for(OTHERS, bucket=OTHER_BUCKET, role_name=OTHER_ROLE)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(apply_changes, cloud, world.later)
            result = await enqueue_and_run(orchestrator, make_requests_for(BATCH))
        print_fault_row(name, said, exit_code_of_run(result), result, cloud)
        await check(world, orchestrator, result, cloud)
    heard = " ".join(said)
    places = [heard.find(words) for words in world.says]
    assert -1 not in places
    assert places == sorted(places)
    assert bool(said) == bool(world.says)


async def apply_changes(cloud: Simulator, changes: tuple[Change, ...]) -> None:
    """Apply the changes during a run, each after three more exports."""
    for number, change in enumerate(changes, 1):
        await wait_until(partial(have_begun, cloud, 3 * number))
        change(cloud)


def have_begun(cloud: Simulator, count: int) -> bool:
    """Return whether the exports of this many images have begun."""
    return len(count_exports(cloud)) >= count


async def check(
    world: FaultCase, orchestrator: Orchestrator, result: RunResult, cloud: Simulator
) -> None:
    """Check the store, the ledger and the result."""
    jobs, began = await read_jobs(orchestrator), count_exports(cloud)
    counts = {state: count for state, count in result.counts.items() if count}
    assert max(began.values()) == 1
    assert all(job.remedy for job in jobs if job.state in {FAILED, UNKNOWN})
    held = {VERIFIED, ACCEPTED, UNKNOWN}
    assert {image for job in jobs if job.state in held for image in job.image_ids} == set(began)
    assert len(read_ledger(cloud)) <= world.max_requests
    assert tuple(stop.scope for stop in result.blocked) == world.stops
    assert all(stop.remedy for stop in result.blocked)
    assert world.ends == (counts if isinstance(world.ends, Mapping) else counts.keys())
    assert exit_code_of_run(result) == world.exits
