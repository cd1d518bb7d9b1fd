"""The XML documents of COS."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from orchestrator.simulator.buckets import StoredObject, Upload
from orchestrator.simulator.cos_paging import Page
from orchestrator.simulator.error_messages import CosError

_OWNER = ("Owner", (("ID", "1250000000"), ("DisplayName", "1250000000")))
_INITIATOR = ("Initiator", (("ID", "1250000000"), ("DisplayName", "1250000000")))

_Content = str | Iterable["_Element"]
_Element = tuple[str, _Content]
_Query = Mapping[str, str]


def objects(
    page: Page[StoredObject], bucket: str, query: _Query, storage_class: str, skew: float
) -> bytes:
    """Return the XML body of GET Bucket: one page of the list of objects.

    Args:
        skew: seconds by which the clock of COS is ahead.
    """
    last = page.last.key if isinstance(page.last, StoredObject) else page.last
    contents = (
        (
            "Contents",
            (
                ("Key", _key(stored.key, query)),
                ("LastModified", _time(stored.written_at + skew)),
                ("ETag", f'"{stored.etag}"'),
                ("Size", str(stored.size)),
                _OWNER,
                ("StorageClass", storage_class),
            ),
        )
        for stored in page.entries
    )
    return _document(
        "ListBucketResult",
        ("Name", bucket),
        *_echo(query, ("encoding-type", "EncodingType")),
        ("Prefix", _key(query.get("prefix", ""), query)),
        ("Marker", _key(query.get("marker", ""), query)),
        ("MaxKeys", query.get("max-keys", "1000")),
        *_echo(query, ("delimiter", "Delimiter")),
        ("IsTruncated", _flag(page)),
        *([] if last is None else [("NextMarker", _key(last, query))]),
        *contents,
        *_groups(page, query),
    )


def uploads(
    page: Page[Upload], bucket: str, query: _Query, storage_class: str, skew: float
) -> bytes:
    """Return the answer to List Multipart Uploads.

    Args:
        skew: seconds by which the clock of COS is ahead.
    """
    if isinstance(page.last, Upload):
        last = page.last.key, page.last.upload_id
    else:
        last = page.last or "", ""
    listed = (
        (
            "Upload",
            (
                ("Key", _key(upload.key, query)),
                ("UploadId", upload.upload_id),
                ("StorageClass", storage_class),
                _INITIATOR,
                _OWNER,
                ("Initiated", _time(upload.started_at + skew)),
            ),
        )
        for upload in page.entries
    )
    return _document(
        "ListMultipartUploadsResult",
        ("Bucket", bucket),
        *_echo(query, ("encoding-type", "EncodingType")),
        ("KeyMarker", _key(query.get("key-marker", ""), query)),
        ("UploadIdMarker", query.get("upload-id-marker", "")),
        ("NextKeyMarker", _key(last[0], query)),
        ("NextUploadIdMarker", last[1]),
        ("MaxUploads", query.get("max-uploads", "1000")),
        ("IsTruncated", _flag(page)),
        ("Prefix", _key(query.get("prefix", ""), query)),
        *_echo(query, ("delimiter", "Delimiter")),
        *listed,
        *_groups(page, query),
    )


def error(fault: CosError, resource: str, request_id: str) -> bytes:
    """Return the answer to a refused request."""
    return _document(
        "Error",
        ("Code", fault.code),
        ("Message", fault.message),
        ("Resource", resource),
        ("RequestId", request_id),
        ("TraceId", request_id),
    )


def _document(name: str, *content: _Element) -> bytes:
    return f"<?xml version='1.0' encoding='utf-8' ?>\n{_element((name, content))}".encode()


def _element(element: _Element) -> str:
    name, content = element
    inner = escape(content) if isinstance(content, str) else "".join(map(_element, content))
    return f"<{name}>{inner}</{name}>"


def _key(key: str, query: _Query) -> str:
    """Return a key as the listing shows it.

    The key is percent-encoded if the client asked for that.
    """
    return quote(key, safe="-_.~") if query.get("encoding-type") == "url" else key


def _echo(query: _Query, names: tuple[str, str]) -> list[_Element]:
    """Return the element that repeats a parameter, if the request has it."""
    return [(names[1], query[names[0]])] if query.get(names[0]) else []


def _groups(page: Page[StoredObject] | Page[Upload], query: _Query) -> list[_Element]:
    return [("CommonPrefixes", [("Prefix", _key(group, query))]) for group in page.groups]


def _flag(page: Page[StoredObject] | Page[Upload]) -> str:
    return "false" if page.last is None else "true"


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
