"""The table of the vendor's error codes: what the program does, and what a person can do.

Sources: the vendor's pages "Common error codes" (all 38) and ExportImages (all 22), the error codes
of its CVM client, the COS page "Error codes". Always compare whole codes, never words in them:
``InvalidParameterValue.LimitExceeded`` is permanent, ``LimitExceeded.…`` means to wait for
capacity, ``RequestLimitExceeded`` means to send more slowly.
"""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.errors import CloudRefusal
from orchestrator.model import Code, Effect, Reaction, Scope

MAY_CONCERN_ONE_IMAGE = frozenset({"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation"})
"""Denials that may concern a single image: other images may still be allowed."""

NOT_FOUND = frozenset(
    {"InvalidImageId.NotFound", "InvalidParameter.SnapshotNotFound", "ResourceNotFound"}
)
"""Refusals that contradict a description of the image."""


OTHER_REGION = "Client.OtherRegion"
"""Code of an answer of COS that sends the client to another region."""

UNTRUSTED_READS = "Client.UntrustedReads"
"""Code of a look-up in a bucket of which neither HEAD nor listings can be believed."""

UNDATED_OBJECT = "Client.UndatedObject"
"""Code of a look-up that found an object of which it cannot be said whether it is new."""


def code_for(name: str) -> Code:
    """Return the row of an API code.

    An unknown code gets the row of its first segment, or else a row for unknown codes.
    """
    row = CODES.get(name) or CODES.get(name.partition(".")[0]) or _UNKNOWN
    return replace(row, name=name)


def is_listed(name: str) -> bool:
    """Return whether the table has a row for exactly this API code."""
    return name in CODES


def cos_code_for(refusal: CloudRefusal) -> Code:
    """Return the row of an error from COS.

    An unknown code gets the row ``Http4xx`` or ``HttpOther``, by its status.
    """
    name = refusal.code
    if name == "AccessDenied" and "Request has expired" in refusal.message:
        # here COS has no code of its own for a signature that is too old
        name = "RequestTimeTooSkewed"
    elif name not in COS_CODES:
        name = "Http4xx" if 400 <= refusal.http_status < 500 else "HttpOther"
    return replace(COS_CODES[name], name=refusal.code)


def read_table(table: str) -> Mapping[str, Code]:
    """Read rows of ``code: remedy`` under headings such as ``[halt, bucket]``.

    A heading gives the reaction and, for a halt, its scope. The reaction also says whether an
    export may have begun. Indented lines continue a remedy.
    """
    rows: dict[str, Code] = {}
    for section in table.strip().split("\n\n"):
        heading, *lines = section.replace("\n    ", " ").split("\n")
        reaction, _, scope = heading.strip("[]").partition(", ")
        effect = _EFFECTS.get(Reaction(reaction), Effect.NO)
        for line in lines:
            name, _, remedy = line.partition(": ")
            rows[name] = Code(
                name, Reaction(reaction), effect, remedy, Scope(scope) if scope else None
            )
    return rows


_EFFECTS = {Reaction.ACCEPT: Effect.YES, Reaction.RECONCILE: Effect.MAYBE}

_UNKNOWN = Code(
    "",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "Read the message: this program does not know the code, so upgrade it if the code repeats.",
)

CODES = read_table("""
[halt, credential]
AuthFailure: Check the API key, its token and its permissions against the message.
AuthFailure.InvalidAuthorization: Check for a proxy that changes request headers; without one,
    report the RequestId.
AuthFailure.InvalidSecretId: Use an API key from the CAM console (its SecretId starts with AKID),
    not another key.
AuthFailure.MFAFailure: Use an API key that needs no multi-factor authentication, or complete that
    first.
AuthFailure.SecretIdNotFound: Check in the CAM console of this site (intl and mainland keys differ)
    that the key exists and is enabled.
AuthFailure.SignatureFailure: Correct the SecretKey; if it is right, check for a proxy that changes
    requests.
AuthFailure.UnauthorizedOperation: Grant cvm:ExportImages and cvm:DescribeImages to this key's user
    in CAM.
UnauthorizedOperation: Grant this key cvm:ExportImages and cvm:DescribeImages in CAM.
UnauthorizedOperation.MFAExpired: Repeat the multi-factor authentication, or use an API key that
    does not need it.
UnauthorizedOperation.MFANotFound: Bind a multi-factor device to the user, or use an API key that
    does not need one.
UnauthorizedOperation.PermissionDenied: Ask the account's administrator for the permission
    cvm:ExportImages.

[halt, account]
AccountQualificationRestrictions: Complete the account's verification in the console, as the message
    asks.
IpInBlacklist: Use an address that is not on the account's block list.
IpNotInWhitelist: Add this machine's public address to the account's allow list.

[halt, endpoint]
ActionOffline: Upgrade this program: Tencent Cloud has withdrawn this API.
InvalidAction: Check site and endpoint: this endpoint does not know ExportImages.
NoSuchProduct: Check the endpoint: it does not serve CVM.
NoSuchVersion: Check the endpoint: it does not serve version 2017-03-12 of CVM.
UnsupportedProtocol: Set the endpoint to an https:// URL, and check for a proxy that changes
    requests.

[halt, region]
UnsupportedRegion: Check that the region's id is right and belongs to this site (intl, mainland or
    finance).

[halt, role]
AuthFailure.CamRoleNameAuthenticateFailed: Create the role (by default CVM_QcsRole, carrier
    cvm.qcloud.com) with permission to write to COS, or name another one with --role-name.

[halt, bucket]
InvalidParameterValue.BucketNotFound: Check that the bucket exists in the image's region and that
    its name ends in -APPID.
InvalidParameterValue.InvalidAppIdFormat: Correct the bucket's name: it must end in a hyphen and the
    APPID, as in backup-1250000000.
InvalidParameterValue.InvalidBucketPermissionForExport: Give the CVM role permission to write to
    this bucket.

[resign, clock]
AuthFailure.SignatureExpire: Synchronize this machine's clock, for example with NTP; if it is right,
    check for a proxy or CDN that sends a wrong Date header.

[refresh, credential]
AuthFailure.TokenFailure: Get a new temporary key, and set its SecretId, SecretKey and token
    together.
UnauthorizedOperation.InvalidToken: Log in again: the token of this key is not valid.

[slow]
RequestLimitExceeded: Nothing to do; if it repeats, lower the rate: the console and other tools of
    this user share the limit.
RequestLimitExceeded.GlobalRegionUinLimitExceeded: Lower the rate of every program that uses this
    main account, in all regions.
RequestLimitExceeded.IPLimitExceeded: Lower the rate of every program that shares this machine's
    public address.
RequestLimitExceeded.UinLimitExceeded: Lower the rate of this program, or of the main account's
    other users.

[capacity]
LimitExceeded: Wait until the quota in the message is free, or ask for a higher one.
LimitExceeded.ExportImageTaskLimitExceeded: Nothing to do: the next export starts when a running one
    has ended.
ResourceInsufficient: Nothing to do: the region is short of resources, and the export is sent again
    later.

[busy]
FailedOperation.InvalidImageState: Wait until the image is in state NORMAL again; it is then sent
    again.
InvalidImageId.IncorrectState: Wait until the image's other task has ended; it is then sent again.
InvalidParameterValue.InvalidImageState: Wait until the image's other task has ended; remove the
    image from the batch if its creation or import has failed.
MutexOperation: Wait until the other operation on this image has ended.
MutexOperation.TaskRunning: Wait until the running export of this image has ended; an earlier
    request may have started it.
ResourceInUse: Wait until no other operation uses the image or its disks.

[reconcile]
FailedOperation: Read the message; if it repeats, open a ticket with the RequestId.
InternalError: Wait: the bucket is checked before the export is sent again; if the error lasts, open
    a ticket with the RequestId.
InternalServerError: Wait: CVM has failed; the bucket is checked before the export is sent again.
ResourceUnavailable: Wait; if it lasts, check the account's resources in the console.
ResponseSizeLimitExceeded: Put fewer images into one request; this export may run although its
    answer was lost.
ServiceUnavailable: Wait until CVM works again; the bucket is checked before the export is sent
    again.

[fail]
DryRunOperation: Report a bug in this program: it sent a dry run.
InvalidFilter: Report a bug in this program: it sent an unknown filter.
InvalidFilterValue: Report a bug in this program: it sent a wrong filter value.
InvalidFilterValue.LimitExceeded: Report a bug in this program: it sent too many filter values.
InvalidImageId: Correct the image id as the message says.
InvalidImageId.Malformed: Correct the image id: it must look like img-xxxxxxxx.
InvalidImageId.NotFound: Check the image id and --region: this account has no such image in that
    region.
InvalidParameter: Correct the parameter that the message names.
InvalidParameter.ImageIdsSnapshotIdsMustOne: Report a bug in this program: it must send image ids
    and no snapshot ids.
InvalidParameter.SnapshotNotFound: Create the image again: one of its snapshots does not exist any
    more.
InvalidParameterValue: Correct the value that the message names.
InvalidParameterValue.InvalidFileNamePrefixList: Use a short prefix of letters, digits and hyphens;
    if it is one, report a bug in this program.
InvalidParameterValue.InvalidImageId: Choose another image: the vendor does not allow this one to be
    exported.
InvalidParameterValue.InvalidImageOsName: Copy the image to a region that offers its operating
    system, and export the copy.
InvalidParameterValue.InvalidRegion: Correct the region's id, as in ap-singapore.
InvalidParameterValue.LimitExceeded: Put fewer images into one request.
InvalidParameterValue.TooLarge: Shorten the value that the message names, for example the prefix.
InvalidRequest: Report a bug in this program: its request was malformed.
MissingParameter: Add the parameter that the message names.
RequestSizeLimitExceeded: Split the request into smaller ones: its body is too large.
ResourceNotFound: Check the ids and the region: the message names what does not exist.
UnauthorizedOperation.ImageNotBelongToAccount: Export the image with an API key of the account that
    owns it.
UnknownParameter: Report a bug in this program: it sent an unknown parameter.
UnsupportedOperation: Choose another image: the vendor does not allow this operation.
UnsupportedOperation.EncryptedImagesNotSupported: Copy the image to an image without encryption, and
    export the copy.
UnsupportedOperation.ImageTooLargeExportUnsupported: Shrink the disk that is larger than 500 GB; if
    it is a data disk, use --only-root-disk.
UnsupportedOperation.MarketImageExportUnsupported: Build the image again from a public image: this
    one comes from the marketplace.
UnsupportedOperation.PublicImageExportUnsupported: Create a custom image of your own: public images
    cannot be exported.
UnsupportedOperation.RedHatImageExportUnsupported: Use another distribution: Red Hat images cannot
    be exported.
UnsupportedOperation.Region: Use another region: this one does not offer the export.
UnsupportedOperation.SharedImageExportUnsupported: Export the image from the account that shares it,
    or copy it to your account first.
UnsupportedOperation.WindowsImageExportUnsupported: Remove this image from the batch: Windows images
    cannot be exported.
""")
"""Every known API code. A code without a dot also stands for unknown codes that begin with it and
a dot."""

# The answer to a HEAD has no body, so an expired token shows only as Http400.
COS_CODES = read_table("""
[retry]
Http429: Wait: COS received too many requests; the look-up is repeated later.
InternalError: Wait: COS had an internal error and is asked again.
KmsFreqControl: Wait: the bucket's key service receives too many requests.
KmsInternalException: Wait: the bucket's key service had an internal error.
NoSuchKey: Wait: the object does not exist yet.
RequestTimeout: Check the network connection to COS if this repeats.
ServiceUnavailable: Wait: COS is not available at the moment.
SlowDown: Lower the rate of other programs that use this bucket.
UserNetworkTooSlow: Check this machine's network: it is too slow for COS.
HttpOther: Wait: COS is queried again; if this lasts, check for a proxy between this machine and
    COS.

[resign, bucket]
RequestTimeTooSkewed: Synchronize this machine's clock (NTP); if it is right, check for a proxy or
    CDN that sends a wrong Date header.

[refresh, credential]
ExpiredToken: Log in again: the temporary key has expired.
Http400: Get a new temporary key; if it is new, check the bucket's name.

[halt, credential]
InvalidAccessKeyId: Check that the API key exists, is enabled, and has its token.
SignatureDoesNotMatch: Correct the SecretKey; if it is right, check for a proxy that changes
    requests to COS.

[halt, account]
Http402: Pay the account's bill: COS refuses requests while it is overdue.
PaymentRequired: Pay what the account owes; COS accepts requests again afterwards.

[halt, bucket]
Client.OtherRegion: Use a bucket in the images' region, or correct --region: the bucket is in the
    region that the message names.
Client.ProxyRefusalError: Ask the proxy's administrator to allow COS (for 407, correct the user name
    and password), or run with --verify off: then exports stay accepted.
Client.SSLCertVerificationError: Make this machine trust the certificate of COS (SSL_CERT_FILE can
    name a file of authorities), or run with --verify off: without it no export can be verified.
Client.UndatedObject: Check in the console whether the objects are new; synchronize this machine's
    clock (NTP), which may differ from that of COS; look for a proxy that changes Date or removes
    Last-Modified in answers of COS.
Client.UntrustedReads: Check for a proxy between this machine and COS that answers in its place.
AccessDenied: Grant HeadObject, GetBucket and ListMultipartUploads (name/cos:…) on the bucket to
    this key's user in CAM.
AccessForbidden: Change the bucket's own policy: it forbids this request.
Http403: Grant name/cos:HeadObject on this bucket.
Http404: Check the bucket's region and name (it ends in -APPID): it was not found.
Http451: Ask Tencent Cloud's support: the bucket is blocked for legal reasons.
Http4xx: Read the message, then check the bucket's name and your permissions on it.
InvalidBucketName: Correct the bucket's name: lower-case letters, digits and hyphens, then -APPID.
NoSuchBucket: Create the bucket in the images' region, or correct its name.
UnavailableForLegalReasons: Ask Tencent Cloud's support why the bucket is blocked.
""")
"""Every known COS code. ``Http`` with a number stands for an answer with this status and no code;
``Http4xx`` and ``HttpOther`` stand for all others."""
