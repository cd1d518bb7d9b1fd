"""The images of the account: a catalogue generated from the seed, changed by the settings."""

import hashlib
import random
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

from orchestrator.simulator.settings import ImageSettings, Settings

_ALPHABET = string.ascii_lowercase + string.digits
_IMAGE_ID = re.compile(r"img-[a-z0-9]{8}")
_SYSTEMS = (
    ("TencentOS", "TencentOS Server 3.1 (TK4)"),
    ("Ubuntu", "Ubuntu Server 22.04 LTS 64bit"),
    ("Debian", "Debian 12.4 64bit"),
    ("CentOS", "CentOS 7.9 64bit"),
)
_SIZES = (20, 50, 50, 100, 200)
_SYSTEM_GIB, _DATA_GIB = 50, 100


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of an image, stored as a snapshot."""

    snapshot_id: str
    usage: str
    size_gib: int

    @property
    def other_snapshot_id(self) -> str:
        """Another well-formed snapshot id."""
        kind, _, name = self.snapshot_id.partition("-")
        return f"{kind}-{name[::-1]}"


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Args:
        region: its region; ``None`` is every region.
        sizes: GiB of its disks, the system disk first.
        market: made from a marketplace image.
    """

    image_id: str
    sizes: tuple[int, ...] = (_SYSTEM_GIB,)
    region: str | None = None
    name: str = ""
    state: str = "NORMAL"
    type: str = "PRIVATE_IMAGE"
    platform: str = _SYSTEMS[0][0]
    os_name: str = _SYSTEMS[0][1]
    created: str = "2026-01-01T00:00:00Z"
    tags: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    market: bool = False

    @property
    def disks(self) -> tuple[Disk, ...]:
        """The disks with their snapshots, the system disk first."""
        return tuple(
            Disk(_snapshot_id(self.image_id, n), "DATA_DISK" if n else "SYSTEM_DISK", size)
            for n, size in enumerate(self.sizes)
        )


class Catalogue:
    """All images that exist.

    Args:
        count: number of generated images, spread evenly over the regions.
    """

    def __init__(self, seed: int, count: int, regions: tuple[str, ...]) -> None:
        self._seed = seed
        self._made = {image.image_id: image for image in _make(seed, count, regions)}

    def find(self, image_id: str, region: str, settings: Settings) -> Image | None:
        """Return an image with the settings applied; None if the region does not have it."""
        change = settings.images.get(image_id)
        image = self._made.get(image_id)
        if image is None and (change is not None or self._any_exists(settings)):
            image = _derive(self._seed, image_id)
        if image is None or (change is not None and change.missing):
            return None
        image = image if change is None else _changed(image, change)
        return image if image.region in {None, region} else None

    def known(self, region: str, settings: Settings) -> Iterator[Image]:
        """Yield the images of a region that a listing shows; "any image" is not listed."""
        for image_id in {**self._made, **settings.images}:
            if image := self.find(image_id, region, settings):
                yield image

    def made(self) -> tuple[Image, ...]:
        """Return the generated images, in order."""
        return tuple(self._made.values())

    def _any_exists(self, settings: Settings) -> bool:
        return not self._made if settings.any_image is None else settings.any_image


def is_image_id(text: str) -> bool:
    """Return whether a text is a well-formed image id."""
    return _IMAGE_ID.fullmatch(text) is not None


def _make(seed: int, count: int, regions: tuple[str, ...]) -> Iterator[Image]:
    chance = random.Random(f"{seed}/images")
    for number in range(count):
        platform, os_name = chance.choice(_SYSTEMS)
        data = (chance.choice(_SIZES),) * chance.choice((0, 0, 0, 1, 2))
        yield Image(
            image_id="img-" + "".join(chance.choices(_ALPHABET, k=8)),
            sizes=(chance.choice(_SIZES), *data),
            region=regions[number % len(regions)],
            name=f"server-{number:04}",
            platform=platform,
            os_name=os_name,
            created=f"2026-{chance.randint(1, 9):02}-{chance.randint(1, 28):02}T03:00:00Z",
            tags={"team": chance.choice(("web", "data", "games")), "number": str(number)},
        )


@lru_cache(maxsize=65_536)
def _derive(seed: int, image_id: str) -> Image:
    """Return an image made from its id alone; one in four has a data disk."""
    with_data = _digest(f"{seed}/{image_id}")[0] % 4 == 0
    sizes = (_SYSTEM_GIB, _DATA_GIB) if with_data else (_SYSTEM_GIB,)
    return Image(image_id, sizes, name=f"image-{image_id[4:]}")


def _changed(image: Image, change: ImageSettings) -> Image:
    given = {name: value for name, value in asdict(change).items() if value is not None}
    del given["missing"]
    return replace(image, **given)


@lru_cache(maxsize=65_536)
def _snapshot_id(image_id: str, number: int) -> str:
    digest = _digest(f"{image_id}/{number}")
    return "snap-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:8])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
