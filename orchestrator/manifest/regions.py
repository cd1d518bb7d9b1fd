"""The rule of a region's name: unknown ones may be new, but not those that are mistyped."""

import difflib
import re
from functools import lru_cache

from orchestrator.manifest.problems import MAX_SHOWN, Problem, quoted

KNOWN_REGIONS = (
    *("ap-bangkok", "ap-beijing", "ap-chengdu", "ap-chongqing", "ap-guangzhou", "ap-hongkong"),
    *("ap-jakarta", "ap-nanjing", "ap-seoul", "ap-shanghai", "ap-singapore", "ap-tokyo"),
    *("eu-frankfurt", "me-saudi-arabia", "na-ashburn", "na-siliconvalley", "sa-saopaulo"),
)
"""Only for suggestions: the vendor may have opened regions that are not listed here."""

_OTHER_REGIONS = (
    *("ap-beijing-fsi", "ap-guangzhou-open", "ap-guiyang", "ap-johorbahru", "ap-mumbai"),
    *("ap-osaka", "ap-qingyuan", "ap-shanghai-adc", "ap-shanghai-fsi", "ap-shenzhen"),
    *("ap-shenzhen-fsi", "ap-taipei", "ap-tianjin", "ap-zhongwei", "eu-moscow"),
    *("na-queretaro", "na-toronto"),
)
"""Restricted, new or closing regions: never suggested, but not taken for misspelled ones."""

_REGION_NAMES = {
    **dict.fromkeys(("bj", "北京"), "ap-beijing"),
    **dict.fromkeys(("cd", "成都"), "ap-chengdu"),
    **dict.fromkeys(("cq", "重庆"), "ap-chongqing"),
    **dict.fromkeys(("gz", "广州"), "ap-guangzhou"),
    **dict.fromkeys(("sh", "上海"), "ap-shanghai"),
    **dict.fromkeys(("nj", "南京"), "ap-nanjing"),
    **dict.fromkeys(("hk", "hkg", "香港", "中国香港"), "ap-hongkong"),
    **dict.fromkeys(("sg", "sgp", "sin", "新加坡"), "ap-singapore"),
    **dict.fromkeys(("th", "bkk", "曼谷"), "ap-bangkok"),
    **dict.fromkeys(("id", "jkt", "雅加达"), "ap-jakarta"),
    **dict.fromkeys(("kr", "首尔"), "ap-seoul"),
    **dict.fromkeys(("jp", "tyo", "ap-tokio", "东京"), "ap-tokyo"),
    **dict.fromkeys(("de", "ger", "fra", "法兰克福"), "eu-frankfurt"),
    **dict.fromkeys(("sa", "riyadh", "me-riyadh", "利雅得"), "me-saudi-arabia"),
    **dict.fromkeys(("virginia", "us-east", "弗吉尼亚"), "na-ashburn"),
    **dict.fromkeys(("us-west", "硅谷"), "na-siliconvalley"),
    **dict.fromkeys(("br", "圣保罗"), "sa-saopaulo"),
}
"""Short and local names of regions, for suggestions."""

_REGION = re.compile(r"(?=.{1,32}\Z)[a-z]{2}-[a-z0-9-]+")
_ZONE = re.compile(r"(.+)-[0-9]{1,2}")


def region(value: str) -> str | Problem:
    """Check a region and return it in lower case.

    An unknown one may be new and is accepted, unless it is a known one with a slip of the keyboard.
    """
    name = value.lower()
    if name in KNOWN_REGIONS or name in _OTHER_REGIONS:
        return name
    zone = _ZONE.fullmatch(name)
    if zone and zone[1] in KNOWN_REGIONS + _OTHER_REGIONS:
        return Problem(f"{quoted(value)} is a zone, not a region.", f"Write {zone[1]}.")
    near = difflib.get_close_matches(name[:MAX_SHOWN], KNOWN_REGIONS, n=1)
    suggested = _REGION_NAMES.get(name) or "".join(near)
    if _REGION.fullmatch(name) and not _is_misspelled(name, suggested):
        return name
    hint = f"Did you mean {suggested}?" if suggested else "Use a region such as ap-singapore."
    return Problem(f"{quoted(value)} is not a valid region.", hint)


def _is_misspelled(name: str, region: str) -> bool:
    """Return whether a region that is not listed is a known one, mistyped."""
    if name in _REGION_NAMES:
        return True
    # Not with another letter: ap-chengde is a city of its own. Hyphens do not tell names apart.
    typed, meant = name.replace("-", ""), region.replace("-", "")
    return typed == meant or typed in _slips(meant)


@lru_cache(maxsize=len(KNOWN_REGIONS))
def _slips(name: str) -> frozenset[str]:
    """Return the misspellings of a name that are recognized.

    Each letter in turn is left out, doubled, or swapped with the next one.
    """
    parts = [(name[:at], name[at : at + 1], name[at + 1 :]) for at in range(len(name))]
    return frozenset(
        slip
        for before, letter, after in parts
        for slip in (
            before + after,
            before + letter + letter + after,
            before + after[:1] + letter + after[1:],
        )
    )
