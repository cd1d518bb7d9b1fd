"""What a simulator is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.simulator.settings import Settings


@dataclass(frozen=True, slots=True)
class Key:
    """A credential that the simulator accepts.

    Args:
        account: the sub-account whose allowances it uses; several keys may share one.
        token: makes it a temporary key, good only together with this token.
        expires_at: seconds since the epoch, on the server's clock; ``None`` never ends.
    """

    secret_id: str
    secret_key: str = field(repr=False)
    account: str = "100000000001"
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


DEFAULT_KEY = Key("AKIDsimulator0000000000000000000000", "simulator-secret-key")
"""The credential of a simulator that is given no other."""


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What stays as it is while a simulator runs.

    Args:
        port: of 127.0.0.1; 0 is a free one, chosen by the system.
        seed: of all that is left to chance; the same requests in the same order fare the same.
        images: size of the generated catalogue; 0 is none, and then any image exists.
        regions: over which the catalogue is spread.
        ledger: file to which a JSON line is appended for each request.
        keys: the credentials that are accepted.
        settings: what may be changed later.
    """

    port: int = 0
    seed: int = 1
    images: int = 0
    regions: tuple[str, ...] = ("ap-singapore",)
    ledger: Path | None = None
    keys: tuple[Key, ...] = (DEFAULT_KEY,)
    settings: Settings = field(default_factory=Settings)
