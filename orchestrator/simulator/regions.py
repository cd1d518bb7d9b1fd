"""The regions of CVM (sources: a recorded answer of DescribeRegions; the vendor's list)."""

from collections.abc import Mapping

REGIONS: Mapping[str, str] = {
    "ap-guangzhou": "South China (Guangzhou)",
    "ap-shanghai": "East China (Shanghai)",
    "ap-nanjing": "East China (Nanjing)",
    "ap-beijing": "North China (Beijing)",
    "ap-chengdu": "Southwest China (Chengdu)",
    "ap-chongqing": "Southwest China (Chongqing)",
    "ap-hongkong": "Hong Kong, China",
    "ap-singapore": "Southeast Asia (Singapore)",
    "ap-bangkok": "Southeast Asia (Bangkok)",
    "ap-jakarta": "Southeast Asia (Jakarta)",
    "ap-seoul": "Northeast Asia (Seoul)",
    "ap-tokyo": "Northeast Asia (Tokyo)",
    "me-saudi-arabia": "Middle East (Riyadh)",
    "na-siliconvalley": "US West (Silicon Valley)",
    "na-ashburn": "US East (Virginia)",
    "sa-saopaulo": "South America (Sao Paulo)",
    "eu-frankfurt": "Europe (Frankfurt)",
}
"""Region id to English name."""

FINANCE_REGIONS: Mapping[str, str] = {
    "ap-shenzhen-fsi": "South China (Shenzhen Finance)",
    "ap-shanghai-fsi": "East China (Shanghai Finance)",
    "ap-beijing-fsi": "North China (Beijing Finance)",
}
"""They work like the others, but DescribeRegions shows them only to accounts with access."""
