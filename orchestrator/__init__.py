"""Export Tencent Cloud CVM images to COS in batches, each exactly once, with an audit trail.

The Python API::

    async with Orchestrator("exports.db") as orchestrator:
        await orchestrator.enqueue([ExportRequest(("img-1a2b3c4d",), region, bucket)])
        result = await orchestrator.run()
        async for job in orchestrator.history():
            ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.errors import InvalidRequestError as InvalidRequestError
    from orchestrator.errors import OrchestratorError as OrchestratorError
    from orchestrator.job_queue.enqueue import EnqueueResult as EnqueueResult
    from orchestrator.job_states import JobState as JobState
    from orchestrator.manifest.export_request import ExportRequest as ExportRequest
    from orchestrator.model import ImageFormat as ImageFormat
    from orchestrator.model import JobFilter as JobFilter
    from orchestrator.orchestrator import Orchestrator as Orchestrator
    from orchestrator.reporting.history import Job as Job
    from orchestrator.reporting.run_summary import RunResult as RunResult
    from orchestrator.settings import Settings as Settings

__version__ = "0.1.0"

_MODULES = {
    "Orchestrator": "orchestrator",
    "OrchestratorError": "errors",
    "EnqueueResult": "job_queue.enqueue",
    "ExportRequest": "manifest.export_request",
    "ImageFormat": "model",
    "InvalidRequestError": "errors",
    "Job": "reporting.history",
    "JobFilter": "model",
    "JobState": "job_states",
    "RunResult": "reporting.run_summary",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    """Import a public name only when it is used: this file runs before each command."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_MODULES, "__version__"])
