"""The three reads of a bucket, for tests that hold for each of them."""

from collections.abc import Awaitable, Callable

import pytest

from orchestrator.cloud.cos import CosClient

BUCKET = "backup-1250000000"
Read = Callable[[CosClient], Awaitable[object]]


def head_object(cos: CosClient) -> Awaitable[object]:
    return cos.head_object("ap-tokyo", BUCKET, "key")


def list_objects(cos: CosClient) -> Awaitable[object]:
    return cos.list_objects("ap-tokyo", BUCKET, "night-")


def list_uploads(cos: CosClient) -> Awaitable[object]:
    return cos.list_uploads("ap-tokyo", BUCKET, "night-")


every_read = pytest.mark.parametrize("read", [head_object, list_objects, list_uploads])
every_listing = pytest.mark.parametrize("read", [list_objects, list_uploads])
