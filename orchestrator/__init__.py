"""Exports hundreds of Tencent Cloud images to COS, once each, and can prove it."""

__version__ = "0.1.0"
