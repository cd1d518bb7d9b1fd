"""The COS service: it checks the signature, then the bucket, then performs the operation."""

import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote

from orchestrator.simulator import cos_signature_check, cos_xml
from orchestrator.simulator.buckets import make_object
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.cos_paging import cut_page
from orchestrator.simulator.error_messages import CosError
from orchestrator.simulator.export_tasks import Order
from orchestrator.simulator.http_connection import Request, Response
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.settings import BucketSettings

_HOST = re.compile(r"(?P<bucket>[a-z0-9-]+)\.cos\.(?P<region>[a-z0-9-]+)\.myqcloud\.com(:\d+)?")
_IMAGE_KEY = re.compile(r"(img-[a-z0-9]{8})(?![a-z0-9])")
_MONTH = 30 * 86_400
_ANY_SIZE = 50 << 30
_MAX_PAGE = 1000
"""Entries of one page of a listing (source: the vendor's page of GET Bucket)."""


def accepts(request: Request) -> bool:
    """Return whether the Host header of a request names a bucket."""
    return _HOST.fullmatch(request.headers.get("host", "")) is not None


def identify(request: Request, connection: int) -> Call:
    """Read the operation, bucket and key from a request."""
    host = _HOST.fullmatch(request.headers["host"])
    assert host is not None
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    key = unquote(request.path[1:])
    entry = Entry(
        service="cos",
        action=_operation(request.method, key, query),
        connection=connection,
        region=host["region"],
        bucket=host["bucket"],
        key=key or query.get("prefix", ""),
    )
    return Call(request, entry, query)


def answer(cloud: Cloud, call: Call) -> Response:
    """Answer one request; an error is an XML document with its own HTTP status."""
    entry = call.entry
    entry.request_id = cloud.request_id()
    try:
        response = _perform(cloud, call)
    except CosError as error:
        entry.code = error.code
        body = cos_xml.error(error, f"{entry.bucket}/{entry.key}", entry.request_id)
        response = _xml(body, error.status)
        if error.status == 301:
            region = cloud.settings.buckets[entry.bucket or ""].redirect or ""
            host = f"{entry.bucket}.cos.{region}.myqcloud.com"
            response = response.with_header("Location", f"https://{host}{call.request.path}")
            response = response.with_header("x-cos-bucket-region", region)
    return response.with_header("x-cos-request-id", entry.request_id)


def _operation(method: str, key: str, query: Mapping[str, str]) -> str:
    if method == "HEAD":
        return "HeadObject" if key else "HeadBucket"
    if method == "GET" and not key:
        return "ListMultipartUploads" if "uploads" in query else "GetBucket"
    return method


def _perform(cloud: Cloud, call: Call) -> Response:
    entry = call.entry
    entry.account = cos_signature_check.verify(call.request, cloud.keys, cloud.cos_now()).account
    bucket = cloud.bucket(entry.bucket or "", entry.region or "")
    if bucket is None:
        raise CosError("NoSuchBucket")
    if bucket.redirect not in {None, entry.region}:
        raise CosError("PermanentRedirect")
    if entry.action in bucket.deny:
        raise CosError("AccessDenied")
    if refusal := cloud.refusal(entry):
        raise CosError(refusal.code)
    if cloud.settings.old_objects:
        _write_old_objects(cloud, entry)
    if entry.action not in _OPERATIONS:
        raise CosError("MethodNotAllowed")
    return _OPERATIONS[entry.action](cloud, call, bucket)


def _write_old_objects(cloud: Cloud, entry: Entry) -> None:
    """Write objects of last month for the image whose id begins a key.

    Objects that exist already are kept. The old ones cannot be written at the start, because any
    image can exist.
    """
    bucket, region, key = entry.bucket or "", entry.region or "", entry.key or ""
    begin = _IMAGE_KEY.match(key)
    image = cloud.images.find(begin[1], region, cloud.settings) if begin else None
    if image is None:
        return
    image_format = (key.rpartition(".")[2] if "." in key else "raw").upper()
    order = Order("", region, bucket, image_format, False, (image,), ("",))
    for name, disk in order.written_files(0, cloud.settings.object_names):
        if cloud.buckets.get(bucket, region, name) is None:
            old = make_object(name, disk.size_gib << 30, cloud.now() - _MONTH, "old")
            cloud.buckets.put(bucket, region, old)


def _head_bucket(_cloud: Cloud, call: Call, _bucket: BucketSettings) -> Response:
    return Response(200, headers=(("x-cos-bucket-region", call.entry.region or ""),))


def _head_object(cloud: Cloud, call: Call, bucket: BucketSettings) -> Response:
    entry = call.entry
    stored = cloud.buckets.get(entry.bucket or "", entry.region or "", entry.key or "")
    if stored is None and cloud.settings.head_finds_anything:
        stored = make_object(entry.key or "", _ANY_SIZE, cloud.now(), "anything")
    if stored is None:
        raise CosError("NoSuchKey")
    response = Response(
        200,
        headers=(
            ("Content-Length", str(stored.size)),
            ("Content-Type", "application/octet-stream"),
            ("ETag", f'"{stored.etag}"'),
            ("Last-Modified", formatdate(stored.written_at + cloud.settings.cos_skew, usegmt=True)),
            ("x-cos-hash-crc64ecma", str(stored.crc64)),
        ),
    )
    if bucket.storage_class == "STANDARD":
        return response
    return response.with_header("x-cos-storage-class", bucket.storage_class)


def _get_bucket(cloud: Cloud, call: Call, bucket: BucketSettings) -> Response:
    entry, query = call.entry, call.parameters
    prefix, marker = query.get("prefix", ""), query.get("marker", "")
    shown = "" if cloud.settings.listings_ignore_prefix else prefix
    stored = cloud.buckets.after(entry.bucket or "", entry.region or "", shown, marker)
    if cloud.settings.empty_listings:
        stored = []
    page = cut_page(stored, prefix, query.get("delimiter", ""), marker, _limit(query, "max-keys"))
    skew = cloud.settings.cos_skew
    return _xml(cos_xml.objects(page, entry.bucket or "", query, bucket.storage_class, skew))


def _list_uploads(cloud: Cloud, call: Call, bucket: BucketSettings) -> Response:
    entry, query = call.entry, call.parameters
    prefix, marker = query.get("prefix", ""), query.get("key-marker", "")
    last_id = query.get("upload-id-marker", "")
    found = cloud.exports.uploads(entry.bucket or "", entry.region or "", cloud.now())
    if cloud.settings.hide_uploads or cloud.settings.empty_listings:
        found = []
    later = [
        upload
        for upload in found
        if (upload.key.startswith(prefix) or cloud.settings.listings_ignore_prefix)
        and (
            upload.key > marker or (last_id and (upload.key, upload.upload_id) > (marker, last_id))
        )
    ]
    page = cut_page(later, prefix, query.get("delimiter", ""), marker, _limit(query, "max-uploads"))
    skew = cloud.settings.cos_skew
    return _xml(cos_xml.uploads(page, entry.bucket or "", query, bucket.storage_class, skew))


_OPERATIONS: Mapping[str, Callable[[Cloud, Call, BucketSettings], Response]] = {
    "HeadBucket": _head_bucket,
    "HeadObject": _head_object,
    "GetBucket": _get_bucket,
    "ListMultipartUploads": _list_uploads,
}


def _limit(query: Mapping[str, str], name: str) -> int:
    """Return the largest number of entries that the client wants in one page."""
    if query.get("encoding-type", "url") != "url":
        raise CosError("InvalidArgument", "encoding-type must be url.")
    text = query.get(name, str(_MAX_PAGE))
    if not text.isdecimal() or int(text) > _MAX_PAGE:
        raise CosError("InvalidArgument", f"{name} must be from 0 to {_MAX_PAGE}.")
    return int(text)


def _xml(body: bytes, status: int = 200) -> Response:
    return Response(status, body, (("Content-Type", "application/xml"),))
