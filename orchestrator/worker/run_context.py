"""The objects that one run works with."""

from dataclasses import dataclass

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.admission import Admission
from orchestrator.settings import Settings
from orchestrator.store import Database


@dataclass(frozen=True, slots=True)
class RunContext:
    """The settings, the store, the clients of CVM and COS, and the admission of requests."""

    settings: Settings
    database: Database
    cvm: CvmClient
    cos: CosClient
    admission: Admission
