"""The error codes of the services, with their messages."""

from collections.abc import Mapping

COMMON_MESSAGES: Mapping[str, str] = {
    "ActionOffline": "This API has been taken offline.",
    "AuthFailure.InvalidAuthorization": "The Authorization header does not have the right form.",
    "AuthFailure.InvalidSecretId": "The key is not a cloud API key.",
    "AuthFailure.MFAFailure": "Multi-factor authentication did not succeed.",
    "AuthFailure.SecretIdNotFound": "The SecretId is not found: deleted, disabled or mistyped.",
    "AuthFailure.SignatureExpire": "The signature has expired: the clocks differ by over 300 s.",
    "AuthFailure.SignatureFailure": "The provided credentials could not be validated.",
    "AuthFailure.TokenFailure": "The token is wrong or has expired.",
    "AuthFailure.UnauthorizedOperation": "You are not authorized by CAM to perform this operation.",
    "DryRunOperation": "The request would have succeeded, but DryRun was set.",
    "FailedOperation": "The operation has failed.",
    "InternalError": "An internal error has occurred.",
    "InvalidAction": "The requested action is not valid.",
    "InvalidParameter": "A parameter is not correct.",
    "InvalidParameterValue": "A parameter has a value that is not allowed.",
    "InvalidRequest": "The multipart body of the request is malformed.",
    "IpInBlacklist": "The address that the request comes from is blocked.",
    "IpNotInWhitelist": "The address that the request comes from is not on the allow list.",
    "LimitExceeded": "A quota has been used up.",
    "MissingParameter": "A required parameter is missing.",
    "NoSuchProduct": "There is no such product.",
    "NoSuchVersion": "The product has no such API version.",
    "RequestLimitExceeded": "The frequency of requests is over the limit.",
    "RequestLimitExceeded.GlobalRegionUinLimitExceeded": (
        "The main account sends more requests than all regions together allow."
    ),
    "RequestLimitExceeded.IPLimitExceeded": "This address sends requests too frequently.",
    "RequestLimitExceeded.UinLimitExceeded": "The main account sends requests too frequently.",
    "RequestSizeLimitExceeded": "The request is larger than allowed.",
    "ResourceInUse": "The resource is occupied.",
    "ResourceInsufficient": "There are not enough resources.",
    "ResourceNotFound": "The resource does not exist.",
    "ResourceUnavailable": "The resource is not available.",
    "ResponseSizeLimitExceeded": "The response is larger than allowed.",
    "ServiceUnavailable": "The service is temporarily not available.",
    "UnauthorizedOperation": "The operation is not authorized.",
    "UnknownParameter": "A parameter is not known.",
    "UnsupportedOperation": "The operation is not supported.",
    "UnsupportedProtocol": "The request must be sent with HTTPS, by GET or POST.",
    "UnsupportedRegion": "The region is not supported by this API.",
}
"""The codes that every API of the vendor can answer with."""

EXPORT_MESSAGES: Mapping[str, str] = {
    "AuthFailure.CamRoleNameAuthenticateFailed": "The CAM role name could not be authenticated.",
    "InvalidImageId.Malformed": "The image ID is malformed.",
    "InvalidImageId.NotFound": "The image ID does not exist.",
    "InvalidParameter.ImageIdsSnapshotIdsMustOne": (
        "One of ImageIds and SnapshotIds is required, and not both."
    ),
    "InvalidParameter.SnapshotNotFound": "The snapshot is not found.",
    "InvalidParameterValue.BucketNotFound": "The bucket is not found in this region.",
    "InvalidParameterValue.InvalidAppIdFormat": "The bucket name does not end in an AppId.",
    "InvalidParameterValue.InvalidBucketPermissionForExport": (
        "The role has no permission to write to the bucket."
    ),
    "InvalidParameterValue.InvalidFileNamePrefixList": (
        "FileNamePrefixList must have as many entries as the list of images."
    ),
    "InvalidParameterValue.InvalidImageId": "The image does not allow this operation.",
    "InvalidParameterValue.InvalidImageOsName": (
        "The operating system of the image is not available in this region."
    ),
    "InvalidParameterValue.InvalidImageState": "The image is busy with another task; try later.",
    "InvalidParameterValue.LimitExceeded": "A list has more values than allowed.",
    "InvalidParameterValue.TooLarge": "A value is larger than allowed.",
    "LimitExceeded.ExportImageTaskLimitExceeded": (
        "Too many image export tasks are in progress; try again when some have ended."
    ),
    "UnsupportedOperation.EncryptedImagesNotSupported": "Encrypted images cannot be exported.",
    "UnsupportedOperation.ImageTooLargeExportUnsupported": "The image is too large to export.",
    "UnsupportedOperation.MarketImageExportUnsupported": (
        "An image made from a marketplace image cannot be exported."
    ),
    "UnsupportedOperation.PublicImageExportUnsupported": "A public image cannot be exported.",
    "UnsupportedOperation.RedHatImageExportUnsupported": "A Red Hat image cannot be exported.",
    "UnsupportedOperation.SharedImageExportUnsupported": "A shared image cannot be exported.",
    "UnsupportedOperation.WindowsImageExportUnsupported": "A Windows image cannot be exported.",
}
"""The further codes of ExportImages (source: the vendor's page of the API)."""

_COS: Mapping[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied."),
    "AccessForbidden": (403, "The access is forbidden."),
    "ExpiredToken": (400, "The security token has expired."),
    "InternalError": (500, "An internal error has occurred; please try again."),
    "InvalidAccessKeyId": (403, "The access key is not in our records, or its token is wrong."),
    "InvalidArgument": (400, "An argument is not valid."),
    "InvalidBucketName": (400, "The bucket name is not valid."),
    "KmsFreqControl": (503, "Too many requests to the key management service."),
    "KmsInternalException": (500, "The key management service has failed."),
    "MethodNotAllowed": (405, "This method is not allowed on this resource."),
    "NoSuchBucket": (404, "The bucket does not exist."),
    "NoSuchKey": (404, "The key does not exist."),
    "PaymentRequired": (402, "The account is in arrears."),
    "PermanentRedirect": (301, "The bucket is in another region; use its own endpoint."),
    "RequestTimeTooSkewed": (403, "The signature is not valid yet: the clocks differ too much."),
    "RequestTimeout": (400, "The request took too long to arrive."),
    "ServiceUnavailable": (503, "The service is temporarily not available."),
    "SignatureDoesNotMatch": (403, "The signature that we calculated is another one."),
    "SlowDown": (503, "Please reduce your request rate."),
    "UnavailableForLegalReasons": (451, "The resource is not available for legal reasons."),
    "UserNetworkTooSlow": (400, "The client's network is too slow."),
}


class ApiError(Exception):
    """CVM or STS refuses a request; a known code has a message of its own."""

    def __init__(self, code: str, message: str = "") -> None:
        known = COMMON_MESSAGES.get(code) or EXPORT_MESSAGES.get(code)
        self.code = code
        self.message = message or known or "The request has been refused."
        super().__init__(f"{code}: {self.message}")


class CosError(Exception):
    """COS refuses a request; the code decides the HTTP status, 403 for an unknown code."""

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        self.status, known = _COS.get(code, (403, "The request has been refused."))
        self.message = message or known
        super().__init__(f"{code}: {self.message}")
