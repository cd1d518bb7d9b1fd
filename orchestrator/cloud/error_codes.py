"""The one table of the vendor's codes: what each calls for, and what the user can do.

A row also says whether an export may have begun when it is the answer, and what a stop holds up.
Sources: the vendor's pages "Common error codes" (all 38) and ExportImages (all 22), the error codes
of its CVM client, the COS page "Error codes". Whole codes are compared, never words in them:
``InvalidParameterValue.LimitExceeded`` is for good, ``LimitExceeded.…`` waits,
``RequestLimitExceeded`` is a matter of seconds.
"""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.errors import CloudRefusal
from orchestrator.model import Code, Effect, Reaction, Scope

_Class = tuple[Reaction, Effect, Scope | None]
_Table = Mapping[_Class, Mapping[str, str]]


MAY_CONCERN_ONE_IMAGE = frozenset({"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation"})
"""Denials that a policy on single images may give: one image's says little of the rest."""


def code_for(name: str) -> Code:
    """The row of an API code; an unknown code gets the row of its family, its first segment."""
    row = CODES.get(name) or CODES.get(name.partition(".")[0]) or _UNKNOWN
    return replace(row, name=name)


def cos_code_for(refusal: CloudRefusal) -> Code:
    """The row of a refused look into a bucket."""
    if refusal.code == "AccessDenied" and "Request has expired" in refusal.message:
        row = COS_CODES["RequestTimeTooSkewed"]
    elif refusal.code in COS_CODES:
        row = COS_CODES[refusal.code]
    else:
        row = _COS_REFUSED if 400 <= refusal.http_status < 500 else _COS_FAULTY
    return replace(row, name=refusal.code)


def _rows(table: _Table) -> Mapping[str, Code]:
    return {
        name: Code(name, reaction, effect, remedy, scope)
        for (reaction, effect, scope), remedies in table.items()
        for name, remedy in remedies.items()
    }


_UNKNOWN = Code(
    "",
    Reaction.RECONCILE,
    Effect.MAYBE,
    "This code is new to this program: read its message, and upgrade if the code keeps coming.",
)
_COS_REFUSED = Code(
    "",
    Reaction.STOP,
    Effect.NO,
    "COS refuses to show this bucket: read the message, then check its name and your permissions.",
    Scope.BUCKET,
)
_COS_FAULTY = Code(
    "",
    Reaction.RETRY,
    Effect.NO,
    "COS gave no usable answer: it is asked again; if it lasts, look for a proxy in between.",
)

_STOP = Reaction.STOP
_NO = Effect.NO

_EXPORT: _Table = {
    (_STOP, _NO, Scope.CREDENTIAL): {
        "AuthFailure": "Check the key, its token and its permissions against the message.",
        "AuthFailure.InvalidAuthorization": (
            "Look for a proxy that alters request headers; without one, report the RequestId."
        ),
        "AuthFailure.InvalidSecretId": (
            "Use an API key from the CAM console (it begins with AKID), not another kind of key."
        ),
        "AuthFailure.MFAFailure": (
            "Use a key that is not bound to multi-factor authentication, or complete that first."
        ),
        "AuthFailure.SecretIdNotFound": (
            "Check in the CAM console of this site (intl and mainland keys differ) that the key "
            "exists and is enabled."
        ),
        "AuthFailure.SignatureFailure": (
            "Correct the SecretKey; if it is right, look for a proxy that changes Host or body."
        ),
        "AuthFailure.UnauthorizedOperation": (
            "Grant cvm:ExportImages and cvm:DescribeImages to this key's user in CAM."
        ),
        "UnauthorizedOperation": "Grant this key cvm:ExportImages and cvm:DescribeImages in CAM.",
        "UnauthorizedOperation.MFAExpired": (
            "Verify with multi-factor authentication again, or use a key that does not ask for it."
        ),
        "UnauthorizedOperation.MFANotFound": (
            "Bind a multi-factor device to the user, or use a key that does not ask for one."
        ),
        "UnauthorizedOperation.PermissionDenied": (
            "Ask the account's administrator for the right to export images (cvm:ExportImages)."
        ),
    },
    (_STOP, _NO, Scope.ACCOUNT): {
        "AccountQualificationRestrictions": (
            "Complete the account's verification in the console, as the message asks."
        ),
        "IpInBlacklist": "Call from an address that the account's block list does not hold.",
        "IpNotInWhitelist": "Add this machine's public address to the account's allow list.",
    },
    (_STOP, _NO, Scope.ENDPOINT): {
        "ActionOffline": "Upgrade this program: Tencent Cloud has withdrawn this API.",
        "InvalidAction": "Check site and endpoint: this one does not know ExportImages.",
        "NoSuchProduct": "Check the endpoint: there is no CVM service behind it.",
        "NoSuchVersion": "Check the endpoint: it does not serve version 2017-03-12 of CVM.",
        "UnsupportedProtocol": "Give the endpoint as https://, without a proxy that rewrites it.",
    },
    (_STOP, _NO, Scope.REGION): {
        "UnsupportedRegion": (
            "Check the region's id, and that it belongs to this site (intl, mainland or finance)."
        ),
    },
    (_STOP, _NO, Scope.ROLE): {
        "AuthFailure.CamRoleNameAuthenticateFailed": (
            "Create the role (by default CVM_QcsRole, carrier cvm.qcloud.com) with the right to "
            "write to COS, or name another with --role-name."
        ),
    },
    (_STOP, _NO, Scope.BUCKET): {
        "InvalidParameterValue.BucketNotFound": (
            "Check that the bucket exists in the image's region, and is named with its -APPID."
        ),
        "InvalidParameterValue.InvalidAppIdFormat": (
            "Name the bucket in full, as in backup-1250000000: the APPID is missing or malformed."
        ),
        "InvalidParameterValue.InvalidBucketPermissionForExport": (
            "Give the CVM role the right to write to this bucket."
        ),
    },
    (Reaction.RESIGN, _NO, Scope.CLOCK): {
        "AuthFailure.SignatureExpire": "Set this machine's clock right, best by NTP.",
    },
    (Reaction.REFRESH, _NO, Scope.CREDENTIAL): {
        "AuthFailure.TokenFailure": "Renew the temporary keys, and set all three parts of them.",
        "UnauthorizedOperation.InvalidToken": "Log in again: the token of these keys is invalid.",
    },
    (Reaction.SLOW, _NO, None): {
        "RequestLimitExceeded": (
            "Lower the rate, or leave it: the console and other tools of this user share it."
        ),
        "RequestLimitExceeded.GlobalRegionUinLimitExceeded": (
            "Lower the rate wherever this main account is used, in every region."
        ),
        "RequestLimitExceeded.IPLimitExceeded": (
            "Lower the rate of everything that calls from this machine's public address."
        ),
        "RequestLimitExceeded.UinLimitExceeded": (
            "Lower the rate of the main account's other users, or of this program."
        ),
    },
    (Reaction.CAPACITY, _NO, None): {
        "LimitExceeded": "Wait until the quota that the message names is free, or have it raised.",
        "LimitExceeded.ExportImageTaskLimitExceeded": (
            "Leave it running: the next export starts as soon as one that runs has ended."
        ),
        "ResourceInsufficient": "Leave it running: the region has no resources for this just now.",
    },
    (Reaction.BUSY, _NO, None): {
        "FailedOperation.InvalidImageState": (
            "Wait until the image is back in state NORMAL; it is tried again by itself."
        ),
        "InvalidImageId.IncorrectState": (
            "Wait for the image's other task; the image is tried again until it is NORMAL."
        ),
        "InvalidParameterValue.InvalidImageState": (
            "Wait: another task holds the image; one that failed to be created never gets free."
        ),
        "MutexOperation": "Wait for the other operation on this image to end.",
        "MutexOperation.TaskRunning": (
            "Wait: the same task runs already for this image, perhaps from an earlier request."
        ),
        "ResourceInUse": "Wait until the image or its disks are no longer in use.",
    },
    (Reaction.RECONCILE, Effect.MAYBE, None): {
        "FailedOperation": (
            "Read the message; if it keeps coming, open a ticket with the RequestId."
        ),
        "InternalError": (
            "A fault at Tencent Cloud: the bucket is searched first; if it lasts, open a ticket."
        ),
        "InternalServerError": (
            "A fault of the CVM service: the bucket is searched before anything is sent again."
        ),
        "ResourceUnavailable": "Check the account's resources if this does not pass by itself.",
        "ResponseSizeLimitExceeded": (
            "Ask for fewer images in one request: the export may run although the answer was lost."
        ),
        "ServiceUnavailable": "Wait: the service is down; the bucket is searched when it is back.",
    },
    (Reaction.DRY_RUN, _NO, None): {
        "DryRunOperation": "Nothing to do: the same request in earnest would be accepted.",
    },
    (Reaction.FAIL, _NO, None): {
        "InvalidFilter": "Report this as a fault of this program: it sent a filter nobody knows.",
        "InvalidFilterValue": "Report this as a fault of this program: it sent a bad filter value.",
        "InvalidFilterValue.LimitExceeded": (
            "Report this as a fault of this program: it sent too many filter values."
        ),
        "InvalidImageId": "Correct the image id as the message says.",
        "InvalidImageId.Malformed": "Correct the image id: it looks like img-xxxxxxxx.",
        "InvalidImageId.NotFound": (
            "Check the image id and --region: this account has no such image there."
        ),
        "InvalidParameter": "Correct the parameter that the message names.",
        "InvalidParameter.ImageIdsSnapshotIdsMustOne": (
            "Report this as a fault of this program: it must send image ids and nothing else."
        ),
        "InvalidParameter.SnapshotNotFound": (
            "Make the image again: a snapshot that it consists of is gone."
        ),
        "InvalidParameterValue": "Correct the value that the message names.",
        "InvalidParameterValue.InvalidFileNamePrefixList": (
            "Shorten or simplify the prefix; if it is plain, report this as a fault here."
        ),
        "InvalidParameterValue.InvalidImageId": (
            "Choose another image: the vendor does not let this one be exported."
        ),
        "InvalidParameterValue.InvalidImageOsName": (
            "Copy the image to a region that offers its operating system, and export it there."
        ),
        "InvalidParameterValue.InvalidRegion": "Correct the region's id, as in ap-singapore.",
        "InvalidParameterValue.LimitExceeded": "Put fewer images into one request.",
        "InvalidParameterValue.TooLarge": (
            "Lower the value that is over its maximum, such as an over-long prefix."
        ),
        "InvalidRequest": "Report this as a fault of this program: the request was malformed.",
        "MissingParameter": "Add the parameter that the message names.",
        "RequestSizeLimitExceeded": "Split the request: its body is too large.",
        "ResourceNotFound": "Check the ids and the region: what the message names is not there.",
        "UnauthorizedOperation.ImageNotBelongToAccount": (
            "Export the image with the keys of the account that owns it."
        ),
        "UnknownParameter": "Report this as a fault of this program: it sent an unknown parameter.",
        "UnsupportedOperation": "Choose another way: the vendor does not allow this for the image.",
        "UnsupportedOperation.EncryptedImagesNotSupported": (
            "Copy the image to an unencrypted one, and export the copy."
        ),
        "UnsupportedOperation.ImageTooLargeExportUnsupported": (
            "Shrink the disk that is over 500 GB, or leave data disks out with --only-root-disk."
        ),
        "UnsupportedOperation.MarketImageExportUnsupported": (
            "Build the image anew on a public one: it stems from a marketplace image."
        ),
        "UnsupportedOperation.PublicImageExportUnsupported": (
            "Make a custom image of your own: public images cannot be exported."
        ),
        "UnsupportedOperation.RedHatImageExportUnsupported": (
            "Build on another distribution: the vendor exports no Red Hat images."
        ),
        "UnsupportedOperation.Region": "Use another region: this one does not offer the export.",
        "UnsupportedOperation.SharedImageExportUnsupported": (
            "Export it from the account that shares it, or copy it to your own first."
        ),
        "UnsupportedOperation.WindowsImageExportUnsupported": (
            "Leave this image out: the vendor exports no Windows images."
        ),
    },
}

_COS: _Table = {
    (Reaction.RETRY, _NO, None): {
        "Http429": "Wait: COS asks for fewer requests; it is asked again later.",
        "InternalError": "Wait: a fault inside COS, it is asked again.",
        "KmsFreqControl": "Wait: the key service behind the bucket is asked too often.",
        "KmsInternalException": "Wait: a fault of the key service behind the bucket.",
        "NoSuchKey": "Wait: the object is not there yet.",
        "RequestTimeout": "Check the connection to COS if this does not pass by itself.",
        "ServiceUnavailable": "Wait: COS is down for the moment.",
        "SlowDown": "Lower the rate of whatever else reads this bucket.",
        "UserNetworkTooSlow": "Check this machine's network: COS found it too slow.",
    },
    (Reaction.RESIGN, _NO, Scope.CLOCK): {
        "RequestTimeTooSkewed": "Synchronise this machine's clock (NTP): COS finds it wrong.",
    },
    (Reaction.REFRESH, _NO, Scope.CREDENTIAL): {
        "ExpiredToken": "Log in again: the temporary keys have expired.",
        # all that a HEAD tells of an expired token
        "Http400": "Renew temporary keys; if they are fresh, check the bucket's name.",
    },
    (_STOP, _NO, Scope.CREDENTIAL): {
        "InvalidAccessKeyId": "Check that the key exists and is enabled, and has its token.",
        "SignatureDoesNotMatch": "Correct the SecretKey, or the proxy that alters the request.",
    },
    (_STOP, _NO, Scope.ACCOUNT): {
        "Http402": "Settle the account's bill: COS refuses while it is overdue.",
        "PaymentRequired": "Pay what the account owes: COS serves it again afterwards.",
    },
    (_STOP, _NO, Scope.BUCKET): {
        "AccessDenied": (
            "Grant HeadBucket, HeadObject, GetBucket and ListMultipartUploads (name/cos:…) on the "
            "bucket to this key's user in CAM."
        ),
        "AccessForbidden": "Check the bucket's own policy: it forbids the look.",
        "Http403": "Grant name/cos:HeadObject and name/cos:HeadBucket on this bucket.",
        "Http404": "Check the bucket's name, its -APPID and its region: it is not there.",
        "Http451": "Ask Tencent Cloud's support: the bucket is blocked for legal reasons.",
        "InvalidBucketName": "Correct the bucket's name: lower case, digits, hyphens, -APPID.",
        "NoSuchBucket": "Create the bucket in the images' region, or correct its name.",
        "UnavailableForLegalReasons": "Ask Tencent Cloud's support why the bucket is blocked.",
    },
}

CODES: Mapping[str, Code] = _rows(_EXPORT)
"""Every known API code; a name without a dot also speaks for its family."""

COS_CODES: Mapping[str, Code] = _rows(_COS)
"""Every known COS code, and the statuses that stand for one where there is no body."""
