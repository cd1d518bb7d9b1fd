"""Another program that uses the same account: the vendor's own client, at a constant rate."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.cvm.v20170312.cvm_client import CvmClient
from tencentcloud.cvm.v20170312.models import ExportImagesRequest

from benchmarks.cli_on_store import BUCKET, REGION
from benchmarks.simulator_process import SimulatorProcess


@contextmanager
def run_competing_client(cloud: SimulatorProcess, rate: float) -> Iterator[None]:
    """Send this many dry runs of ExportImages per second until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=_ask, args=(_client(cloud), 1 / rate, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _ask(client: CvmClient, interval: float, over: threading.Event) -> None:
    request = ExportImagesRequest()
    request.BucketName, request.ImageIds, request.DryRun = BUCKET, ["img-99999999"], True
    due = time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        due += interval
        try:
            client.ExportImages(request)
        except TencentCloudSDKException:
            continue  # a refusal changes nothing for it


def _client(cloud: SimulatorProcess) -> CvmClient:
    place = urlsplit(cloud.url)
    keys = (cloud.variables["TENCENTCLOUD_SECRET_ID"], cloud.variables["TENCENTCLOUD_SECRET_KEY"])
    http = HttpProfile(protocol=place.scheme, endpoint=place.netloc)
    return CvmClient(Credential(*keys), REGION, ClientProfile(httpProfile=http))
