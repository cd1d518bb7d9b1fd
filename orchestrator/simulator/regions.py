"""The regions of CVM (source: a recorded answer of DescribeRegions)."""

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
"""Id to English name."""
