"""What an answer, or the lack of one, means for an export: a row for everything that can happen."""

import ssl
from collections.abc import Iterator, Mapping

import httpx

from orchestrator.cloud.error_codes import code_for
from orchestrator.model import Code, Effect, Reaction, Reply, Scope


def code_for_reply(reply: Reply) -> Code:
    """The row of an HTTP answer; only TaskId and CosPaths together are an acceptance."""
    if reply.error_code is not None:
        return code_for(reply.error_code)
    if reply.http_status != 200:
        return _HTTP_STATUS
    if reply.excerpt is not None:
        return _NOT_AN_API_ANSWER
    return _ACCEPTED if reply.task_id is not None and reply.cos_paths else _NO_TASK_ID


def code_for_exception(error: Exception) -> Code:
    """The row of an exception that came instead of an answer."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error)):
        return _CERTIFICATE
    classes = (EXCEPTIONS[kind] for kind in type(error).__mro__ if kind in EXCEPTIONS)
    return next(classes, _UNEXPECTED)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


_ACCEPTED = Code(
    "Client.Accepted",
    Reaction.ACCEPT,
    Effect.YES,
    "Nothing to do: the export runs, and its objects are waited for.",
)
_HTTP_STATUS = Code(
    "Client.HttpStatus",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Look for a gateway or proxy that answered in the API's place; the bucket is searched first.",
)
_NOT_AN_API_ANSWER = Code(
    "Client.NotAnApiAnswer",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Check the endpoint and any proxy or login page before it: the answer is not the API's.",
)
_NO_TASK_ID = Code(
    "Client.NoTaskId",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Nothing to do yet: the answer lacks its task, so the bucket is searched for the export.",
)
_CERTIFICATE = Code(
    "Client.SSLCertVerificationError",
    Reaction.STOP,
    Effect.NO,
    "Make this machine trust the endpoint's certificate, or correct the endpoint.",
    Scope.ENDPOINT,
)
_UNEXPECTED = Code(
    "Client.Unexpected",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Report this as a fault of this program, with the message and the log.",
)

_Remedies = Mapping[type[Exception], str]

_TABLE: Mapping[tuple[Reaction, Effect], _Remedies] = {
    # nothing of the request has left
    (Reaction.PAUSE, Effect.NO): {
        httpx.ConnectError: "Check network, name resolution and endpoint; it goes on by itself.",
        httpx.ConnectTimeout: "Check network and firewall: the endpoint does not respond.",
        httpx.PoolTimeout: "Lower the concurrency: no connection became free in time.",
        httpx.ProxyError: "Check the proxy's address and rights: it refuses the connection.",
    },
    (Reaction.FAIL, Effect.NO): {
        httpx.InvalidURL: "Correct the endpoint: it is no valid URL.",
        httpx.LocalProtocolError: "Report this as a fault of this program: it cannot be sent.",
        httpx.UnsupportedProtocol: "Write the endpoint with http:// or https:// before it.",
    },
    # the request, or its last byte, may have arrived
    (Reaction.RECONCILE, Effect.MAYBE): {
        httpx.ReadError: "Check the network if this repeats: the connection broke while waiting.",
        httpx.ReadTimeout: "Raise the request time-out if this repeats: the answer came too late.",
        httpx.RemoteProtocolError: "Look for a proxy that cuts connections if this repeats.",
        httpx.WriteError: "Check the network if this repeats: the connection broke while sending.",
        httpx.WriteTimeout: "Check the upload speed if this repeats: sending took too long.",
        httpx.CloseError: "Check the network if this repeats: the connection ended badly.",
        httpx.DecodingError: "Look for a proxy that recompresses answers: this one is garbled.",
        httpx.TooManyRedirects: "Check the endpoint and any proxy: the answer leads in circles.",
        httpx.HTTPStatusError: "Look for a gateway that answers in the API's place.",
        httpx.TimeoutException: "Check the network if this repeats: a time limit was spent.",
        httpx.NetworkError: "Check the network if this repeats: the connection failed.",
        httpx.ProtocolError: "Look for a proxy that breaks HTTP if this repeats.",
        httpx.TransportError: "Check network and proxy if this repeats: the exchange failed.",
        httpx.RequestError: "Check network and endpoint if this repeats: the request failed.",
        httpx.HTTPError: "Check network and endpoint if this repeats: HTTP failed.",
        httpx.CookieConflict: "Look for a proxy that sets cookies: this API needs none.",
        httpx.StreamError: "Report this as a fault of this program: a stream was misused.",
        httpx.StreamClosed: "Report this as a fault of this program: a stream was closed early.",
        httpx.StreamConsumed: "Report this as a fault of this program: a stream was read twice.",
        httpx.RequestNotRead: "Report this as a fault of this program: its request was not read.",
        httpx.ResponseNotRead: "Report this as a fault of this program: an answer was not read.",
    },
}

EXCEPTIONS: Mapping[type[Exception], Code] = {
    kind: Code(f"Client.{kind.__name__}", reaction, effect, remedy)
    for (reaction, effect), remedies in _TABLE.items()
    for kind, remedy in remedies.items()
}
"""A row for every exception class of httpx; subclasses of other origin take their parent's."""
