"""Reads of a bucket: HEAD, list objects, list multipart uploads. One call is one request a page."""

import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import httpx
from aiolimiter import AsyncLimiter

from orchestrator.cloud.clock_skew import ServerClock, parse_http_date, parse_time
from orchestrator.cloud.cos_signing import cos_headers
from orchestrator.cloud.credentials.base import CredentialSource
from orchestrator.cloud.error_codes import OTHER_REGION
from orchestrator.cloud.http_client import ActionRequiredError, HttpClient, redirect_target
from orchestrator.errors import CloudRefusal
from orchestrator.model import ObjectFacts, UploadFacts

_RATE = 100
_BURST = 10
"""Requests per second, and how many of them may leave together. COS allows thousands, but each
request costs money, and this process needs its processor for sending exports, too."""

_SIZE = re.compile(r"[0-9]{1,18}")
"""A size that fits into 63 bits, the largest integer of the database."""

_REGION_HOST = re.compile(r"\.cos\.([a-z0-9-]+)\.")
"""The region in the host name of a bucket."""

_NEXT_MARKERS = {
    "marker": "NextMarker",
    "key-marker": "NextKeyMarker",
    "upload-id-marker": "NextUploadIdMarker",
}
"""Parameters that select a page of a listing, and the elements with their values for the next."""


class CosClient:
    """The buckets that one account can read.

    Args:
        endpoint: base URL to connect to; may contain ``{bucket}`` and ``{region}``. The Host
            header is always the bucket's real host name.
        timeout: seconds for one whole request.

    Attributes:
        clock: this service's clock, learned from its answers.
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
        self._limiter = AsyncLimiter(_BURST, _BURST / _RATE)

    async def head_bucket(self, region: str, bucket: str) -> None:
        """Return if the bucket exists in the region.

        Raises:
            CloudRefusal: it does not, or COS answered with another error.
            CredentialError, httpx.HTTPError: as for `head_object`.
        """
        response = await self._send("HEAD", region, bucket, "", {})
        if response.status_code == 404:  # the answer to a HEAD has no code
            raise CloudRefusal("NoSuchBucket", f"no bucket in {region}", http_status=404)
        if response.status_code != 200:
            raise _refusal(response)

    async def head_object(self, region: str, bucket: str, key: str) -> ObjectFacts | None:
        """Return one object; ``None`` if it, or the whole bucket, does not exist.

        Raises:
            CloudRefusal: COS answered with an error, or the answer does not describe an object.
            CredentialError: there is no usable credential.
            httpx.HTTPError: no complete answer arrived.
        """
        response = await self._send("HEAD", region, bucket, key, {})
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise _refusal(response)
        headers = response.headers
        etag, size = headers.get("ETag", ""), headers.get("Content-Length", "")
        # a proxy can also answer 200, and that must not count as an object
        if not etag or not _SIZE.fullmatch(size):
            raise _unreadable(200, "a HEAD without ETag or Content-Length")
        return ObjectFacts(
            key=key,
            size=int(size),
            etag=etag.strip('"'),
            last_modified=parse_http_date(headers.get("Last-Modified")),
            crc64=headers.get("x-cos-hash-crc64ecma"),
            storage_class=headers.get("x-cos-storage-class", "STANDARD"),
        )

    async def list_objects(self, region: str, bucket: str, prefix: str) -> tuple[ObjectFacts, ...]:
        """Return every object whose key starts with the prefix.

        Raises:
            CloudRefusal: COS answered with an error, or with something else than a listing.
        """
        query = {"max-keys": "1000", "marker": ""}
        entries = await self._list(region, bucket, prefix, query, "ListBucketResult", "Contents")
        return tuple(_object(entry) for entry in entries)

    async def list_uploads(self, region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        """Return every unfinished multipart upload whose key starts with the prefix.

        Raises:
            CloudRefusal: COS answered with an error, or with something else than a listing.
        """
        query = {"uploads": "", "max-uploads": "1000", "key-marker": "", "upload-id-marker": ""}
        root = "ListMultipartUploadsResult"
        entries = await self._list(region, bucket, prefix, query, root, "Upload")
        return tuple(
            UploadFacts(
                key=unquote(_required(entry, "Key")),
                initiated=parse_time(datetime.fromisoformat, _text(entry, "Initiated")),
            )
            for entry in entries
        )

    async def _list(
        self, region: str, bucket: str, prefix: str, query: Mapping[str, str], root: str, tag: str
    ) -> list[Element]:
        """Return the elements with one tag from all pages of a listing.

        Args:
            root: tag of the root element, which each page must have.
            tag: tag of the elements.
        """
        query = {**query, "prefix": prefix, "encoding-type": "url"}
        entries: list[Element] = []
        while True:
            response = await self._send("GET", region, bucket, "", query)
            if response.status_code != 200:
                raise _refusal(response)
            page = _parse_xml(response.content)
            if page is None or page.tag != root:
                raise _unreadable(200, f"no {root}")
            # a listing that repeats another question is the answer to another request
            echoes = {"Name": bucket, "Bucket": bucket, "Prefix": prefix}
            if not all(_repeats(page, name, asked) for name, asked in echoes.items()):
                raise _unreadable(200, "the listing of another bucket or prefix")
            entries += page.findall(tag)
            if _text(page, "IsTruncated").lower() != "true":
                return entries
            markers = {
                name: unquote(_text(page, next_tag))
                for name, next_tag in _NEXT_MARKERS.items()
                if name in query
            }
            if markers.items() <= query.items():
                raise _unreadable(200, "a listing whose next page is the same page")
            query |= markers

    async def _send(
        self, method: str, region: str, bucket: str, key: str, query: Mapping[str, str]
    ) -> httpx.Response:
        base = self._endpoint.replace("{bucket}", bucket).replace("{region}", region).rstrip("/")
        # %2E: a segment . or .. is part of a key, and must not be resolved like a folder
        path = quote(f"/{key}").replace("/.", "/%2E")
        # not urlencode: it writes a space as +, which only forms define
        pairs = "&".join(f"{name}={quote(text, safe='')}" for name, text in query.items())
        url = httpx.URL(f"{base}{path}{'?' if pairs else ''}{pairs}")
        host = f"{bucket}.cos.{region}.myqcloud.com"
        response, signed_at = await self._send_once(method, url, host, query)
        # the answer to a HEAD does not say whether the clock or a permission is the reason
        if response.status_code == 403 and self.clock.record_refusal(signed_at):
            response, _ = await self._send_once(method, url, host, query)
        return response

    async def _send_once(
        self, method: str, url: httpx.URL, host: str, query: Mapping[str, str]
    ) -> tuple[httpx.Response, datetime]:
        """Send one request; return its answer and the date of its signature."""
        await self._limiter.acquire()
        credential, signed_at = await self._credentials.current(), self.clock.now()
        headers = cos_headers(
            credential, method=method, host=host, path=url.path, params=query, now=signed_at
        )
        try:
            response = await self._http.send(method, url, headers=headers, seconds=self._timeout)
        except ActionRequiredError as error:
            raise CloudRefusal(error.code, str(error), http_status=0) from error
        if "x-cos-request-id" in response.headers:
            # an answer without this header may be a proxy's, whose clock proves nothing
            self.clock.learn(response.headers.get("Date"), host)
        return response, signed_at


def _object(entry: Element) -> ObjectFacts:
    size = _text(entry, "Size")
    if not _SIZE.fullmatch(size):
        raise _unreadable(200, f"an entry with Size {size[:20]!r}")
    return ObjectFacts(
        key=unquote(_required(entry, "Key")),
        size=int(size),
        etag=_required(entry, "ETag").strip('"'),
        last_modified=parse_time(datetime.fromisoformat, _text(entry, "LastModified")),
        storage_class=_text(entry, "StorageClass") or "STANDARD",
    )


class _NoDocumentType(ET.TreeBuilder):
    """Rejects a document type, in any encoding, before its entities could expand without limit.

    COS declares none.
    """

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        raise ValueError(f"The document has a type: {name}, {public_id}, {system_id}.")


def _parse_xml(content: bytes) -> Element | None:
    """Return the root element of an XML document, all tags without namespaces.

    Return ``None`` if the content is not valid XML or has a document type.
    """
    parser = ET.XMLParser(target=_NoDocumentType())  # noqa: S314 - it rejects entities
    try:
        parser.feed(content)
        root: Element = parser.close()
    except (ET.ParseError, ValueError, LookupError):
        return None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _repeats(page: Element, tag: str, asked: str) -> bool:
    """Return whether an element of an answer repeats what was asked for.

    If the element is missing, the result is also true.
    """
    text = page.findtext(tag)
    return text is None or asked in {text, unquote(text)}


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _required(element: Element, tag: str) -> str:
    text = element.findtext(tag)  # not stripped: a key may begin or end with a space
    if not text:
        # a listing without this entry would seem complete
        raise _unreadable(200, f"an entry without {tag}")
    return text


def _refusal(response: httpx.Response) -> CloudRefusal:
    """Return the error that COS answered with.

    The answer to a HEAD has only a status.
    """
    if response.is_redirect:
        return _redirect(response)
    error, status = _parse_xml(response.content), response.status_code
    if error is None or error.tag != "Error" or not _text(error, "Code"):
        return _unreadable(status, response.reason_phrase or "an error")
    return CloudRefusal(_text(error, "Code"), _text(error, "Message"), http_status=status)


def _redirect(response: httpx.Response) -> CloudRefusal:
    """Return the error for a redirect.

    Its code depends on whether the redirect names the bucket's region.
    """
    status, target = response.status_code, response.headers.get("Location", "")
    host = _REGION_HOST.search(target)
    region = response.headers.get("x-cos-bucket-region") or (host and host[1])
    if region:
        return CloudRefusal(OTHER_REGION, f"the bucket is in {region}", http_status=status)
    shown = redirect_target(response)[:100]
    return _unreadable(status, f"a redirect to {shown or 'nowhere'}")


def _unreadable(status: int, content: str) -> CloudRefusal:
    return CloudRefusal(f"Http{status}", f"COS answered with {content}", http_status=status)
