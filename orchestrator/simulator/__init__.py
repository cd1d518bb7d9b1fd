"""A simulator of Tencent Cloud's CVM, COS and STS on loopback, as far as exports need them.

It is as strict as the vendor, shares no code with the client, and can inject every known fault.
"""

from orchestrator.simulator.export_tasks import Export
from orchestrator.simulator.images import Image
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.scenario import ScenarioError, read_changes
from orchestrator.simulator.server import Simulator, serve
from orchestrator.simulator.settings import (
    DEFAULT_KEY,
    BucketSettings,
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    Key,
    Refusal,
    Settings,
    SimulatorOptions,
)

__all__ = [
    "DEFAULT_KEY",
    "BucketSettings",
    "Delivery",
    "Duration",
    "Entry",
    "Export",
    "Fault",
    "Image",
    "ImageSettings",
    "Key",
    "Refusal",
    "ScenarioError",
    "Settings",
    "Simulator",
    "SimulatorOptions",
    "read_changes",
    "serve",
]
