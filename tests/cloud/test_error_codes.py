"""The table of codes is complete, matches whole codes, and each row has a remedy."""

import pytest

from orchestrator.cloud.error_codes import CODES, COS_CODES, code_for, cos_code_for
from orchestrator.errors import CloudRefusal
from orchestrator.model import Code, Effect, Reaction, Scope

COMMON = [
    "ActionOffline",
    "AuthFailure.InvalidAuthorization",
    "AuthFailure.InvalidSecretId",
    "AuthFailure.MFAFailure",
    "AuthFailure.SecretIdNotFound",
    "AuthFailure.SignatureExpire",
    "AuthFailure.SignatureFailure",
    "AuthFailure.TokenFailure",
    "AuthFailure.UnauthorizedOperation",
    "DryRunOperation",
    "FailedOperation",
    "InternalError",
    "InvalidAction",
    "InvalidParameter",
    "InvalidParameterValue",
    "InvalidRequest",
    "IpInBlacklist",
    "IpNotInWhitelist",
    "LimitExceeded",
    "MissingParameter",
    "NoSuchProduct",
    "NoSuchVersion",
    "RequestLimitExceeded",
    "RequestLimitExceeded.GlobalRegionUinLimitExceeded",
    "RequestLimitExceeded.IPLimitExceeded",
    "RequestLimitExceeded.UinLimitExceeded",
    "RequestSizeLimitExceeded",
    "ResourceInUse",
    "ResourceInsufficient",
    "ResourceNotFound",
    "ResourceUnavailable",
    "ResponseSizeLimitExceeded",
    "ServiceUnavailable",
    "UnauthorizedOperation",
    "UnknownParameter",
    "UnsupportedOperation",
    "UnsupportedProtocol",
    "UnsupportedRegion",
]
EXPORT_IMAGES = [
    "AuthFailure.CamRoleNameAuthenticateFailed",
    "InvalidImageId.Malformed",
    "InvalidImageId.NotFound",
    "InvalidParameter.ImageIdsSnapshotIdsMustOne",
    "InvalidParameter.SnapshotNotFound",
    "InvalidParameterValue.BucketNotFound",
    "InvalidParameterValue.InvalidAppIdFormat",
    "InvalidParameterValue.InvalidBucketPermissionForExport",
    "InvalidParameterValue.InvalidFileNamePrefixList",
    "InvalidParameterValue.InvalidImageId",
    "InvalidParameterValue.InvalidImageOsName",
    "InvalidParameterValue.InvalidImageState",
    "InvalidParameterValue.LimitExceeded",
    "InvalidParameterValue.TooLarge",
    "LimitExceeded.ExportImageTaskLimitExceeded",
    "UnsupportedOperation.EncryptedImagesNotSupported",
    "UnsupportedOperation.ImageTooLargeExportUnsupported",
    "UnsupportedOperation.MarketImageExportUnsupported",
    "UnsupportedOperation.PublicImageExportUnsupported",
    "UnsupportedOperation.RedHatImageExportUnsupported",
    "UnsupportedOperation.SharedImageExportUnsupported",
    "UnsupportedOperation.WindowsImageExportUnsupported",
]
OTHERS = [
    "InternalServerError",
    "FailedOperation.InvalidImageState",
    "InvalidImageId.IncorrectState",
    "MutexOperation.TaskRunning",
    "UnauthorizedOperation.PermissionDenied",
    "UnauthorizedOperation.ImageNotBelongToAccount",
    "UnauthorizedOperation.InvalidToken",
    "UnauthorizedOperation.MFAExpired",
    "UnauthorizedOperation.MFANotFound",
    "AccountQualificationRestrictions",
    "InvalidParameterValue.InvalidRegion",
    "UnsupportedOperation.Region",
    "InvalidFilter",
    "InvalidFilterValue.LimitExceeded",
]

every_row = pytest.mark.parametrize(
    "row", [*CODES.values(), *COS_CODES.values()], ids=lambda row: row.name
)


def refusal(code: str, status: int, message: str = "") -> CloudRefusal:
    return CloudRefusal(code, message, http_status=status)


def test_documented_codes_are_38_and_22() -> None:
    """The lists above hold every common code and every code of ExportImages once."""
    assert (len(COMMON), len(set(COMMON))) == (38, 38)
    assert (len(EXPORT_IMAGES), len(set(EXPORT_IMAGES))) == (22, 22)


@pytest.mark.parametrize("name", COMMON + EXPORT_IMAGES + OTHERS)
def test_every_documented_code_has_its_own_row(name: str) -> None:
    """No documented code depends on the row of its first segment."""
    assert code_for(name) is not None
    assert CODES[name].name == name


@every_row
def test_remedy_is_one_sentence(row: Code) -> None:
    """A remedy starts with a capital and ends with its only full stop."""
    assert row.remedy[0].isupper()
    assert row.remedy.endswith(".")
    assert ". " not in row.remedy


def test_no_two_codes_share_a_remedy() -> None:
    """Each code has a remedy of its own."""
    rows = [*CODES.values(), *COS_CODES.values()]
    assert len({row.remedy for row in rows}) == len(rows)


@every_row
def test_only_halts_name_a_scope(row: Code) -> None:
    """A scope belongs to a halt, and to a second attempt that can become one."""
    stops = row.reaction in {Reaction.HALT, Reaction.RESIGN, Reaction.REFRESH}
    assert (row.scope is not None) == stops


@every_row
def test_only_reconciled_codes_may_have_begun(row: Code) -> None:
    """For every other code it is certain that no export began."""
    assert (row.effect is Effect.MAYBE) == (row.reaction is Reaction.RECONCILE)


@pytest.mark.parametrize(
    ("name", "reaction"),
    [
        ("InvalidParameterValue.LimitExceeded", Reaction.FAIL),
        ("LimitExceeded.ExportImageTaskLimitExceeded", Reaction.CAPACITY),
        ("LimitExceeded", Reaction.CAPACITY),
        ("RequestLimitExceeded", Reaction.SLOW),
        ("RequestLimitExceeded.IPLimitExceeded", Reaction.SLOW),
        ("RequestSizeLimitExceeded", Reaction.FAIL),
        ("ResponseSizeLimitExceeded", Reaction.RECONCILE),
        ("InvalidFilterValue.LimitExceeded", Reaction.FAIL),
    ],
)
def test_limits_are_distinguished_by_the_whole_code(name: str, reaction: Reaction) -> None:
    """The same words in different codes mean to fail, to wait, or to slow down."""
    assert code_for(name).reaction is reaction


@pytest.mark.parametrize(
    ("name", "reaction", "scope"),
    [
        ("AuthFailure.UnauthorizedOperation", Reaction.HALT, Scope.CREDENTIAL),
        ("UnauthorizedOperation.PermissionDenied", Reaction.HALT, Scope.CREDENTIAL),
        ("AuthFailure.CamRoleNameAuthenticateFailed", Reaction.HALT, Scope.ROLE),
        ("InvalidParameterValue.BucketNotFound", Reaction.HALT, Scope.BUCKET),
        ("IpInBlacklist", Reaction.HALT, Scope.ACCOUNT),
        ("InvalidAction", Reaction.HALT, Scope.ENDPOINT),
        ("UnsupportedRegion", Reaction.HALT, Scope.REGION),
        ("AuthFailure.SignatureExpire", Reaction.RESIGN, Scope.CLOCK),
        ("AuthFailure.TokenFailure", Reaction.REFRESH, Scope.CREDENTIAL),
        ("UnauthorizedOperation.InvalidToken", Reaction.REFRESH, Scope.CREDENTIAL),
        ("UnauthorizedOperation.ImageNotBelongToAccount", Reaction.FAIL, None),
        ("InvalidParameterValue.InvalidImageState", Reaction.BUSY, None),
        ("MutexOperation.TaskRunning", Reaction.BUSY, None),
        ("InternalError", Reaction.RECONCILE, None),
        ("DryRunOperation", Reaction.FAIL, None),
    ],
)
def test_codes_have_the_right_reaction_and_scope(
    name: str, reaction: Reaction, scope: Scope | None
) -> None:
    """A code of each kind has its reaction, and a halt covers no more than necessary."""
    assert (code_for(name).reaction, code_for(name).scope) == (reaction, scope)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("AuthFailure.NewKind", "AuthFailure"),
        ("InvalidParameterValue.NewKind", "InvalidParameterValue"),
        ("InvalidImageId.TooLarge", "InvalidImageId"),
        ("LimitExceeded.NewKind", "LimitExceeded"),
        ("RequestLimitExceeded.NewKind.Deeper", "RequestLimitExceeded"),
        ("ResourceInUse.DiskRollbacking", "ResourceInUse"),
        ("MutexOperation.NewKind", "MutexOperation"),
        ("InternalError.TradeUnknownError", "InternalError"),
    ],
)
def test_unknown_code_is_treated_like_its_first_segment(name: str, family: str) -> None:
    """A code without a row is treated like its first segment and keeps its name."""
    row, expected = code_for(name), code_for(family)
    assert row.name == name
    assert (row.reaction, row.effect, row.scope) == (
        expected.reaction,
        expected.effect,
        expected.scope,
    )


@pytest.mark.parametrize("name", ["", "NewFamily", "NewFamily.LimitExceeded", "limitexceeded"])
def test_unknown_first_segment_may_have_had_an_effect(name: str) -> None:
    """A completely unknown code may have taken effect, whatever words it contains."""
    row = code_for(name)
    assert (row.name, row.reaction, row.effect) == (name, Reaction.RECONCILE, Effect.MAYBE)
    assert row.remedy


@pytest.mark.parametrize(
    ("error", "reaction", "scope"),
    [
        (refusal("SlowDown", 503), Reaction.RETRY, None),
        (refusal("RequestTimeout", 400), Reaction.RETRY, None),
        (refusal("ExpiredToken", 400), Reaction.REFRESH, Scope.CREDENTIAL),
        (refusal("Http400", 400), Reaction.REFRESH, Scope.CREDENTIAL),
        (refusal("SignatureDoesNotMatch", 403), Reaction.HALT, Scope.CREDENTIAL),
        (refusal("PaymentRequired", 402), Reaction.HALT, Scope.ACCOUNT),
        (refusal("NoSuchBucket", 404), Reaction.HALT, Scope.BUCKET),
        (refusal("AccessDenied", 403), Reaction.HALT, Scope.BUCKET),
        (refusal("AccessDenied", 403, "Request has expired"), Reaction.RESIGN, Scope.BUCKET),
        (refusal("RequestTimeTooSkewed", 403), Reaction.RESIGN, Scope.BUCKET),
        (refusal("Http403", 403), Reaction.HALT, Scope.BUCKET),
        (refusal("Http404", 404), Reaction.HALT, Scope.BUCKET),
        (refusal("Http429", 429), Reaction.RETRY, None),
        (refusal("Http500", 500), Reaction.RETRY, None),
        (refusal("Http503", 503), Reaction.RETRY, None),
        (refusal("Http200", 200), Reaction.RETRY, None),
        (refusal("Http301", 301), Reaction.RETRY, None),
        (refusal("NewRefusal", 409), Reaction.HALT, Scope.BUCKET),
        (refusal("NewFault", 500), Reaction.RETRY, None),
    ],
    ids=lambda value: value.code if isinstance(value, CloudRefusal) else None,
)
def test_refused_read_has_a_row(
    error: CloudRefusal, reaction: Reaction, scope: Scope | None
) -> None:
    """A refused read gets the row of its code, or else that of its HTTP status.

    A read has no effect.
    """
    row = cos_code_for(error)
    assert (row.name, row.reaction, row.scope) == (error.code, reaction, scope)
    assert row.effect is Effect.NO
    assert row.remedy
