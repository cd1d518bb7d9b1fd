"""Counts of lost and doubled exports: the cloud's ledger compared with the store."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.job_states import FINAL, JobState
from orchestrator.reporting.history import Job
from orchestrator.simulator import DEFAULT_KEY, Entry

_SECRET = DEFAULT_KEY.secret_key.encode()


@dataclass
class ExportCounts:
    """The counts of one scenario or of many.

    Args:
        exports: enqueued images.
        kills: killed processes, by kind of kill.
        lost: images that the cloud never accepted.
        twice: images that the cloud accepted more than once.
        unfinished: jobs that are not in a final state.
        disagreeing: finished jobs that differ from the ledger.
        requests: ExportImages requests.
        reconciled: jobs whose answer was lost and whose export was found in the bucket.
        restarts: seconds from the start of a process to its first ExportImages.
        secrets: files that contain the secret key.
    """

    exports: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    twice: int = 0
    unfinished: int = 0
    disagreeing: int = 0
    requests: int = 0
    reconciled: int = 0
    restarts: list[float] = field(default_factory=list)
    secrets: int = 0

    @property
    def holds(self) -> bool:
        """Whether no export was lost or doubled and no secret was stored."""
        broken = self.lost, self.twice, self.unfinished, self.disagreeing, self.secrets
        return not any(broken)

    def add(self, other: "ExportCounts") -> None:
        """Add the counts of another scenario."""
        for name, figure in vars(other).items():
            setattr(self, name, getattr(self, name) + figure)

    def figures(self) -> dict[str, object]:
        """Return the counts for a report; times are in seconds."""
        restarts = {
            "median": round(statistics.median(self.restarts), 2) if self.restarts else None,
            "worst": round(max(self.restarts), 2) if self.restarts else None,
            "of": len(self.restarts),
        }
        return {
            "exports": self.exports,
            "kills": self.kills.total(),
            "kills by moment": dict(self.kills.most_common()),
            "lost": self.lost,
            "exported twice": self.twice,
            "unfinished": self.unfinished,
            "disagreeing with the ledger": self.disagreeing,
            "requests per export": round(self.requests / max(1, self.exports), 3),
            "reconciled": self.reconciled,
            "restart to first request": restarts,
            "files with the secret key": self.secrets,
        }


def compare_with_ledger(
    images: Sequence[str], ledger: Iterable[Entry], found: Iterable[Job]
) -> ExportCounts:
    """Count the differences between jobs with one image each and the ledger."""
    asked = [entry for entry in ledger if entry.action == "ExportImages"]
    began = Counter(image for entry in asked if entry.accepted for image in entry.image_ids)
    answers = {entry.image_ids: entry for entry in asked if entry.accepted}
    counts = ExportCounts(exports=len(images), requests=len(asked))
    counts.lost = sum(image not in began for image in images)
    counts.twice = sum(times > 1 for times in began.values())
    jobs = list(found)
    counts.unfinished = len(images) - sum(job.state in FINAL for job in jobs)
    ended = [job for job in jobs if job.state in FINAL]
    counts.disagreeing = sum(not _agrees(job, answers.get(job.image_ids)) for job in ended)
    counts.reconciled = sum(job.task_id is None for job in ended)
    return counts


def _agrees(job: Job, answer: Entry | None) -> bool:
    if answer is None or job.state is not JobState.VERIFIED:
        return False
    same_task = job.task_id in {None, answer.task_id}
    return same_task and set(job.cos_paths) == set(answer.cos_paths)


def count_files_with_secret(folder: Path) -> int:
    """Return how many files of a folder contain the secret key."""
    return sum(_SECRET in path.read_bytes() for path in folder.rglob("*") if path.is_file())
