"""What an answer to ExportImages, or an exception instead of one, means for the export."""

import ssl
from collections.abc import Iterator, Mapping

import httpx

from orchestrator.cloud.error_codes import code_for
from orchestrator.model import Code, Effect, Reaction, Reply, Scope


def code_for_reply(reply: Reply) -> Code:
    """Return the table row of an HTTP answer; only TaskId and CosPaths together mean accepted."""
    if reply.error_code is not None:
        return code_for(reply.error_code)
    if reply.http_status != 200:
        return _HTTP_STATUS
    if reply.excerpt is not None:
        return _NOT_AN_API_ANSWER
    return _ACCEPTED if reply.task_id is not None and reply.cos_paths else _NO_TASK_ID


def code_for_exception(error: Exception) -> Code:
    """Return the row of an exception; a subclass of an httpx class gets the row of that class."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return _CERTIFICATE
    classes = (EXCEPTIONS[kind] for kind in type(error).__mro__ if kind in EXCEPTIONS)
    return next(classes, _UNEXPECTED)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


_ACCEPTED = Code(
    "Client.Accepted",
    Reaction.ACCEPT,
    Effect.YES,
    "Nothing to do: the export runs, and its objects are verified when they appear.",
)
_HTTP_STATUS = Code(
    "Client.HttpStatus",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Check for a gateway or proxy that answers instead of the API; the bucket is checked before "
    "the export is sent again.",
)
_NOT_AN_API_ANSWER = Code(
    "Client.NotAnApiAnswer",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Check the endpoint, and for a proxy or login page that answers instead of the API.",
)
_NO_TASK_ID = Code(
    "Client.NoTaskId",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Nothing to do yet: the answer has no TaskId, so the bucket is searched for the export.",
)
_CERTIFICATE = Code(
    "Client.SSLCertVerificationError",
    Reaction.HALT,
    Effect.NO,
    "Make this machine trust the endpoint's certificate, or correct the endpoint.",
    Scope.ENDPOINT,
)
_UNEXPECTED = Code(
    "Client.Unexpected",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Report an error of this program, with the message and the log.",
)

_Remedies = Mapping[type[Exception], str]

_TABLE: Mapping[tuple[Reaction, Effect], _Remedies] = {
    # no byte of the request has left this machine
    (Reaction.PAUSE, Effect.NO): {
        httpx.ConnectError: "Check network, DNS and endpoint; the run continues by itself.",
        httpx.ConnectTimeout: "Check network and firewall: the endpoint does not respond.",
        httpx.PoolTimeout: "Lower the concurrency: no connection became free in time.",
        httpx.ProxyError: "Check the proxy's address and permissions: it refuses the connection.",
    },
    (Reaction.FAIL, Effect.NO): {
        httpx.InvalidURL: "Correct the endpoint: it is not a valid URL.",
        httpx.LocalProtocolError: "Report an error of this program: its request cannot be sent.",
        httpx.UnsupportedProtocol: "Set the endpoint to a URL with http:// or https://.",
    },
    # all of the request may have arrived
    (Reaction.RECONCILE, Effect.MAYBE): {
        httpx.ReadError: "Check the network if this repeats: the connection broke while waiting.",
        httpx.ReadTimeout: "Raise request_timeout if this repeats: the answer came too late.",
        httpx.RemoteProtocolError: "Check for a proxy that cuts connections if this repeats.",
        httpx.WriteError: "Check the network if this repeats: the connection broke while sending.",
        httpx.WriteTimeout: "Check the upload speed if this repeats: sending took too long.",
        httpx.CloseError: "Check the network if this repeats: the connection was not closed well.",
        httpx.DecodingError: "Check for a proxy that changes answers: this one is unreadable.",
        httpx.TooManyRedirects: "Check the endpoint and any proxy: the answer is a redirect loop.",
        httpx.HTTPStatusError: "Check for a gateway that answers instead of the API.",
        httpx.TimeoutException: "Check the network if this repeats: a time limit was exceeded.",
        httpx.NetworkError: "Check the network if this repeats: the connection failed.",
        httpx.ProtocolError: "Check for a proxy that violates HTTP if this repeats.",
        httpx.TransportError: "Check network and proxy if this repeats: the transport failed.",
        httpx.RequestError: "Check network and endpoint if this repeats: the request failed.",
        httpx.HTTPError: "Check network and endpoint if this repeats: HTTP failed.",
        httpx.CookieConflict: "Check for a proxy that sets cookies: the API does not use any.",
        httpx.StreamError: "Report an error of this program: it used a stream wrongly.",
        httpx.StreamClosed: "Report an error of this program: it closed a stream too early.",
        httpx.StreamConsumed: "Report an error of this program: it read a stream twice.",
        httpx.RequestNotRead: "Report an error of this program: it did not read its request.",
        httpx.ResponseNotRead: "Report an error of this program: it did not read an answer.",
    },
}

EXCEPTIONS: Mapping[type[Exception], Code] = {
    kind: Code(f"Client.{kind.__name__}", reaction, effect, remedy)
    for (reaction, effect), remedies in _TABLE.items()
    for kind, remedy in remedies.items()
}
"""A row for every exception class of httpx."""
