"""The objects that one run works with."""

from dataclasses import dataclass

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.admission import Admission
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import Settings
from orchestrator.store import Database


@dataclass(frozen=True, slots=True)
class RunContext:
    """Settings, store, clients of CVM and COS, admission of requests, and warnings."""

    settings: Settings
    database: Database
    cvm: CvmClient
    cos: CosClient
    admission: Admission
    warnings: RunWarnings
