"""Exports hundreds of Tencent Cloud images to COS, once each, and can prove it.

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

_HOMES = {
    "Orchestrator": "orchestrator",
    "OrchestratorError": "errors",
    "EnqueueResult": "job_queue.enqueue",
    "ExportRequest": "manifest.export_request",
    "ImageFormat": "model",
    "InvalidRequestError": "errors",
    "Job": "reporting.history",
    "JobFilter": "model",
    "JobState": "model",
    "RunResult": "reporting.run_summary",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: this file runs before every command."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
