"""Looks into a bucket: HEAD, list objects, list multipart uploads. Reads only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import httpx
from aiolimiter import AsyncLimiter

from orchestrator.cloud.clock_skew import ServerClock, http_date
from orchestrator.cloud.cos_signing import CosAuth
from orchestrator.cloud.credentials.base import CredentialSource
from orchestrator.cloud.http_client import HttpClient
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts, UploadFacts

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class _Listing(Generic[_Entry]):
    """How a kind of listing is asked for, paged and read."""

    query: Mapping[str, str]
    root: str
    bucket: str
    entry: str
    read: Callable[[Element], _Entry]
    markers: Mapping[str, str]


_PER_SECOND, _AT_A_TIME = 100, 10
"""Looks in a second, however many are wanted, and how many may leave together: they are billed, and
the sender needs the processor too."""


class CosClient:
    """COS as one account may see it.

    Args:
        endpoint: base URL to connect to; may hold ``{bucket}`` and ``{region}``. The Host header
            is the bucket's real name whatever stands here.
        timeout: seconds for one request in all.

    Attributes:
        clock: of this service.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        endpoint: str,
        credentials: CredentialSource,
        clock: ServerClock,
        timeout: float,
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._credentials = credentials
        self.clock = clock
        self._timeout = timeout
        self._budget = AsyncLimiter(_AT_A_TIME, _AT_A_TIME / _PER_SECOND)

    async def head_object(self, region: str, bucket: str, key: str) -> ObjectFacts | None:
        """One object, or ``None`` where there is none (or no such bucket: a HEAD cannot tell).

        Raises:
            CloudRefusal: COS answered with an error.
        """
        response = await self._send("HEAD", region, bucket, key=key)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise _refusal(response)
        return _headed_object(key, response)

    async def list_objects(self, region: str, bucket: str, prefix: str) -> tuple[ObjectFacts, ...]:
        """Every object whose key starts with the prefix.

        Raises:
            CloudRefusal: COS answered with an error, or with what is no listing.
        """
        return await self._list(_OBJECTS, region, bucket, prefix)

    async def list_uploads(self, region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        """Every multipart upload under way whose key starts with the prefix.

        Raises:
            CloudRefusal: COS answered with an error, or with what is no listing.
        """
        return await self._list(_UPLOADS, region, bucket, prefix)

    async def _list(
        self, kind: _Listing[_Entry], region: str, bucket: str, prefix: str
    ) -> tuple[_Entry, ...]:
        query = {**kind.query, "prefix": prefix, "encoding-type": "url"}
        entries: list[_Entry] = []
        while True:
            response = await self._send("GET", region, bucket, query=query)
            page = _page(response, kind.root)
            if not _echoes(page, kind.bucket, bucket) or not _echoes(page, "Prefix", prefix):
                raise _unreadable(response, "the listing of another bucket or prefix")
            try:
                entries += [kind.read(entry) for entry in page.findall(f"{{*}}{kind.entry}")]
            except ValueError as fault:
                raise _unreadable(response, str(fault)) from fault
            if _text(page, "IsTruncated").lower() != "true":
                return tuple(entries)
            markers = {name: unquote(_text(page, tag)) for name, tag in kind.markers.items()}
            if markers.items() <= query.items():
                raise _unreadable(response, "a listing that does not go on")
            query |= markers

    async def _send(
        self,
        method: str,
        region: str,
        bucket: str,
        *,
        key: str = "",
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        base = self._endpoint.replace("{bucket}", bucket).replace("{region}", region)
        await self._budget.acquire()
        credential = await self._credentials.current()
        response = await self._http.send(
            method,
            f"{base.rstrip('/')}{_path(key)}{_query_string(query or {})}",
            headers={"Host": f"{bucket}.cos.{region}.myqcloud.com"},
            auth=CosAuth(credential, self.clock.now()),
            seconds=self._timeout,
        )
        if "x-cos-request-id" in response.headers:
            self.clock.learn(response.headers.get("Date"), self.clock.local.now())
        return response


def _path(key: str) -> str:
    # a segment of dots is part of a key's name, yet would be resolved away as a folder
    return quote(f"/{key}").replace("/.", "/%2E")


def _query_string(query: Mapping[str, str]) -> str:
    # spaces as %20: a plus sign is a space in forms, not in every server's query
    pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"?{pairs}" if pairs else ""


def _headed_object(key: str, response: httpx.Response) -> ObjectFacts:
    headers = response.headers
    etag, size = headers.get("ETag", ""), headers.get("Content-Length", "")
    # whatever else may answer 200 in COS's place is no proof of an object
    if not etag or not size.isdecimal():
        raise _unreadable(response, "a HEAD without ETag or Content-Length")
    return ObjectFacts(
        key=key,
        size=int(size),
        etag=etag.strip('"'),
        last_modified=http_date(headers.get("Last-Modified")),
        crc64=headers.get("x-cos-hash-crc64ecma"),
        storage_class=headers.get("x-cos-storage-class", "STANDARD"),
    )


def _page(response: httpx.Response, root: str) -> Element:
    if response.status_code != 200:
        raise _refusal(response)
    page = _xml(response.content)
    if page is None or _name(page) != root:
        raise _unreadable(response, f"no {root}")
    return page


def _refusal(response: httpx.Response) -> CloudRefusal:
    error = _xml(response.content)
    if error is None or _name(error) != "Error" or not _text(error, "Code"):
        return _unreadable(response, response.reason_phrase)
    return CloudRefusal(
        _text(error, "Code"),
        _text(error, "Message"),
        http_status=response.status_code,
        request_id=_text(error, "RequestId") or response.headers.get("x-cos-request-id"),
    )


def _unreadable(response: httpx.Response, fault: str) -> CloudRefusal:
    return CloudRefusal(
        f"Http{response.status_code}",
        f"COS answered with {fault or 'an error'}",
        http_status=response.status_code,
        request_id=response.headers.get("x-cos-request-id"),
    )


def _xml(content: bytes) -> Element | None:
    # COS declares no entities; whoever does is not COS
    if b"<!" in content:
        return None
    try:
        return ET.fromstring(content)  # noqa: S314 - no document type gets this far
    except (ET.ParseError, ValueError, LookupError):
        return None


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, tag: str) -> str:
    return (element.findtext(f"{{*}}{tag}") or "").strip()


def _echoes(page: Element, tag: str, asked: str) -> bool:
    """Whether a listing repeats what was asked for, as far as it repeats it at all."""
    text = page.findtext(f"{{*}}{tag}")
    return text is None or asked in {text, unquote(text)}


def _required(element: Element, tag: str) -> str:
    text = element.findtext(f"{{*}}{tag}")
    if not text:
        raise ValueError(f"an entry without {tag}")
    return text


def _listed_object(entry: Element) -> ObjectFacts:
    return ObjectFacts(
        key=unquote(_required(entry, "Key")),
        size=int(_required(entry, "Size")),
        etag=_required(entry, "ETag").strip('"'),
        last_modified=_iso_date(_text(entry, "LastModified")),
        storage_class=_text(entry, "StorageClass") or "STANDARD",
    )


def _listed_upload(entry: Element) -> UploadFacts:
    return UploadFacts(
        key=unquote(_required(entry, "Key")),
        upload_id=_required(entry, "UploadId"),
        initiated=_iso_date(_text(entry, "Initiated")),
    )


def _iso_date(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_OBJECTS = _Listing(
    query={"max-keys": "1000", "marker": ""},
    root="ListBucketResult",
    bucket="Name",
    entry="Contents",
    read=_listed_object,
    markers={"marker": "NextMarker"},
)
_UPLOADS = _Listing(
    query={"uploads": "", "max-uploads": "1000", "key-marker": "", "upload-id-marker": ""},
    root="ListMultipartUploadsResult",
    bucket="Bucket",
    entry="Upload",
    read=_listed_upload,
    markers={"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"},
)
