"""The request of one export, checked by the rules that also hold for a manifest row."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.errors import InvalidRequestError
from orchestrator.manifest.column_rules import check, check_domain, is_blank
from orchestrator.manifest.problems import Problem
from orchestrator.model import ImageFormat


@dataclass(frozen=True, slots=True, init=False)
class ExportRequest:
    """One call of ExportImages, as a user asks for it; validated when it is made.

    Each value may be written as in a manifest row: blanks around a text are removed, and an
    optional value that is ``None`` or blank takes its default. The fields then hold the types
    that are declared below, whatever was given.

    Args:
        image_ids: the images of this one request, in the user's order: one id, several ids
            separated by semicolons, or a list or tuple of ids.
        region: region of images and bucket, such as ``ap-singapore``.
        bucket: bucket name with its APPID, such as ``backup-1250000000``.
        format: format of the exported files; RAW by default.
        prefix: prefix of the object keys; the job's tag follows it.
        only_root_disk: leave the data disks out.
        role_name: CVM role that writes to the bucket; ``None`` is the vendor's default.
        priority: jobs with a larger one are sent first, from -1000 to 1000; 0 by default.
        not_before: earliest time to send, as a datetime or ISO 8601 text; UTC without an offset.
        exact_names: leave the tag out of the object keys; an unknown job is then never sent
            again automatically.

    Raises:
        InvalidRequestError: a value is not valid, or bucket and region are not valid together.
    """

    image_ids: tuple[str, ...]
    region: str
    bucket: str
    format: ImageFormat = ImageFormat.RAW
    prefix: str = ""
    only_root_disk: bool = False
    role_name: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    exact_names: bool = False

    # written out, because an argument may have more types than the field that it becomes
    def __init__(  # noqa: PLR0917 - a dataclass takes its fields in their order
        self,
        image_ids: str | list[str] | tuple[str, ...],
        region: str,
        bucket: str,
        format: ImageFormat | str | None = None,  # noqa: A002 - the name of the field
        prefix: str | None = None,
        only_root_disk: bool | str | None = None,
        role_name: str | None = None,
        priority: int | str | None = None,
        not_before: datetime | str | None = None,
        exact_names: bool | str | None = None,
    ) -> None:
        raw = dict(locals())  # the arguments by their names
        del raw["self"]
        values, problems = check_fields(raw, DEFAULTS, _REQUIRED_ARGUMENTS)
        if problems:
            field, problem = next(iter(problems.items()))
            raise InvalidRequestError(field, problem.reason, problem.remedy)
        _set_fields(self, values)

    @property
    def identity(self) -> tuple[object, ...]:
        """What two requests for the same objects have in common.

        Priority, time and role do not change what is exported, nor does the order of the images.
        """
        return (
            self.region,
            tuple(sorted(self.image_ids)),
            self.bucket,
            self.format,
            self.prefix,
            self.only_root_disk,
            self.exact_names,
        )


DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in fields(ExportRequest) if field.default is not MISSING
}
"""The values of optional fields that are not given."""

_REQUIRED_ARGUMENTS = {
    "image_ids": "Pass at least one image id.",
    "region": "Pass a region such as ap-singapore.",
    "bucket": "Pass the bucket's name, such as backup-1250000000.",
}


def check_fields(
    raw: Mapping[str, object], defaults: Mapping[str, Any], required: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Problem]]:
    """Check the values of one request, each by its rule, and then together.

    Args:
        raw: values to check, by field; the images may also be in ``image_id``.
        defaults: checked values for what is blank or left out.
        required: the remedy for each field that has neither value nor default.

    Returns:
        The normalized values of all fields, which are only complete without problems, and the
        problems by field.
    """
    given = {
        field: check(field, value) for field, value in raw.items() if not _is_left_out(field, value)
    }
    problems = {field: value for field, value in given.items() if isinstance(value, Problem)}
    values = {**defaults, **given}
    if "image_id" in given:
        values["image_ids"] = values.pop("image_id")
        if "image_ids" in given:
            reason = "image_id and image_ids are both given."
            problems["image_id"] = Problem(reason, "Use one of the two in a row.")
    for field, remedy in required.items():
        if not values.get(field):
            noun = "image" if field == "image_ids" else field
            problems[field] = Problem(f"no {noun} is given.", remedy)
    if not problems and (problem := check_domain(values["bucket"], values["region"])):
        problems["bucket"] = problem
    return values, problems


def _is_left_out(field: str, value: object) -> bool:
    """Return whether a value is blank, as is a list of prefixes without any."""
    if field == "prefix" and isinstance(value, list):
        return all(map(is_blank, value))
    return is_blank(value)


def request_from_checked(values: Mapping[str, Any]) -> ExportRequest:
    """Build a request from values of `check_fields` without checking them again."""
    request = object.__new__(ExportRequest)
    _set_fields(request, values)
    return request


def _set_fields(request: ExportRequest, values: Mapping[str, Any]) -> None:
    set_field = object.__setattr__  # the class is frozen
    for field, value in values.items():
        set_field(request, field, value)
