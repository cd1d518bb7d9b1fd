"""Tencent Cloud's CVM and COS on loopback, as far as exporting images needs them.

The other side of the wire: as strict as the vendor, with every misfortune at hand.
"""

from orchestrator.simulator.command_line import DEFAULT_KEY, Key, SimulatorOptions
from orchestrator.simulator.export_tasks import Export
from orchestrator.simulator.images import Image
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.scenario import ScenarioError, read_changes
from orchestrator.simulator.server import Simulator, serve
from orchestrator.simulator.settings import (
    BucketSettings,
    Delivery,
    Duration,
    Fault,
    ImageSettings,
    Refusal,
    Settings,
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
