"""What an answer to ExportImages, or an exception instead of one, means for the export."""

from dataclasses import replace

from orchestrator.cloud.error_codes import code_for, read_table
from orchestrator.cloud.http_client import ActionRequiredError
from orchestrator.model import Code, Reply


def code_for_reply(reply: Reply) -> Code:
    """Return the row of the code table for an HTTP answer.

    Only an answer with both TaskId and CosPaths means that the export was accepted.
    """
    if reply.error_code is not None:
        return code_for(reply.error_code)
    if reply.http_status != 200:
        return CLIENT_CODES["Client.HttpStatus"]
    if reply.excerpt is not None:
        return CLIENT_CODES["Client.NotAnApiAnswer"]
    is_accepted = reply.task_id is not None and reply.cos_paths
    return CLIENT_CODES["Client.Accepted" if is_accepted else "Client.NoTaskId"]


def code_for_exception(error: Exception) -> Code:
    """Return the row of the code table for an exception.

    A class without a row gets the row of its nearest base class.
    """
    if isinstance(error, ActionRequiredError):
        return replace(CLIENT_CODES[error.code], remedy=error.remedy)
    names = (f"Client.{kind.__name__}" for kind in type(error).__mro__)
    known = (CLIENT_CODES[name] for name in names if name in CLIENT_CODES)
    return next(known, CLIENT_CODES["Client.Unexpected"])


# Under "pause" and "fail" no byte of the request has left this machine. Under "reconcile" all of it
# may have arrived.
CLIENT_CODES = read_table("""
[accept]
Client.Accepted: Nothing to do: the export runs, and its objects are verified when they appear.

[halt, endpoint]
Client.ProxyRefusalError: Correct the user name and password of the proxy, or ask its administrator
    to allow the endpoint.
Client.SSLCertVerificationError: Make this machine trust the endpoint's certificate, or correct the
    endpoint.

[pause]
Client.ConnectError: Check network, DNS and endpoint; a run waits until they work.
Client.ConnectTimeout: Check network and firewall: the endpoint does not respond.
Client.NotTlsError: Check scheme and port of the endpoint, and of the proxy if one is named; log in
    with a browser if a login page answers in their place; a run waits until it does not.
Client.ProxyError: Check the address of the proxy, and that the proxy works; a run waits until it
    does.

[fail]
Client.InvalidURL: Correct the endpoint: it is not a valid URL.
Client.LocalProtocolError: Report a bug in this program: its request cannot be sent.
Client.UnsupportedProtocol: Set the endpoint to a URL with http:// or https://.

[reconcile]
Client.HttpStatus: Check for a gateway or proxy that answers instead of the API; the bucket is
    checked before the export is sent again.
Client.NotAnApiAnswer: Check the endpoint, and for a proxy or login page that answers instead of the
    API.
Client.NoTaskId: Nothing to do yet: the answer has no TaskId, so the bucket is searched for the
    export.
Client.ReadError: Check the network if this repeats: the connection broke while waiting.
Client.ReadTimeout: Raise request_timeout if this repeats: the answer came too late.
Client.RemoteProtocolError: Check for a proxy that cuts connections if this repeats.
Client.WriteError: Check the network if this repeats: the connection broke while sending.
Client.DecodingError: Check for a proxy that changes answers: this one is unreadable.
Client.TransportError: Check network and proxy if this repeats: the transport failed.
Client.Unexpected: Report a bug in this program, with the message and the log.
""")
"""A row for every kind of answer without a code of its own, and for exceptions of httpx."""
