"""The objects that one run works with."""

from dataclasses import dataclass

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.admission import Admission
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import Settings
from orchestrator.store import Database


@dataclass(frozen=True, slots=True)
class RunContext:
    """Settings, store, clients of CVM and COS, admission of requests, and warnings.

    Args:
        sts_clock: the clock of STS; ``None`` if the run does not use STS.
    """

    settings: Settings
    database: Database
    cvm: CvmClient
    cos: CosClient
    admission: Admission
    warnings: RunWarnings
    sts_clock: ServerClock | None = None

    @property
    def clocks(self) -> tuple[ServerClock, ...]:
        """The clocks of all services that the run uses."""
        clocks = (self.sts_clock, self.cvm.clock, self.cos.clock)
        return tuple(clock for clock in clocks if clock is not None)
