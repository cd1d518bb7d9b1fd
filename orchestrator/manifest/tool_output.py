"""Find the images in JSON that other tools write: answers of the vendor, outputs of Terraform.

tccli prints an answer without the outer ``Response``, pretty-printed; its ``--filter`` and jq take
any part out of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.manifest.column_rules import IMAGE_ID
from orchestrator.manifest.problems import escaped, listed, unreadable
from orchestrator.wording import plural

_NOT_EXPORTED = ("PUBLIC_IMAGE", "SHARED_IMAGE")
"""Types of images that ExportImages refuses for good (source: its error codes)."""

_JQ_STATE = """jq '[.. | objects | select(.type? == "tencentcloud_image") | .values.id]'"""


class ImageLists:
    """Takes values of JSON apart into rows; counts what the answers among them say."""

    def __init__(self) -> None:
        self._shown: Counter[int] = Counter()  # images, by the total that their answers name
        self._is_answer = False
        self._described = 0  # images whose type is known
        self._not_exported: list[str] = []  # their ids
        self._other_outputs: list[str] = []  # of Terraform

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the answers."""
        # pages of one list name the same total, and so may several lists
        notes = [
            f"The answer of DescribeImages has {shown} of {shown + -shown % total} images. Get the "
            "others with --Offset and --Limit, and enqueue them too."
            for total, shown in self._shown.items()
            if shown % total
        ]
        if names := self._not_exported:
            notes.append(
                f"{len(names)} of {plural(self._described, 'image')} cannot be exported, because "
                f"the vendor exports private images only: {listed(names)}. Cancel their jobs; "
                "tccli lists "
                """others with --Filters '[{"Name":"image-type","Values":["PRIVATE_IMAGE"]}]'."""
            )
        if self._other_outputs:
            notes.append(f"Outputs of Terraform without images: {listed(self._other_outputs)}.")
        return tuple(notes)

    def check_not_empty(self, line: int, count: int) -> None:
        """Raise an error if answers were read, but not an image."""
        if self._is_answer and not count:
            raise unreadable(
                line,
                "the answer of DescribeImages has no image.",
                "Check its region, profile and filters.",
            )

    def rows(self, value: object, line: int) -> Iterator[tuple[object, bool]]:
        """Yield each row in a value, and whether its unknown keys are to be ignored.

        A row is an object or the id of an image; anything else is yielded as it is. So is a list of
        ids within a list: it may be one request, or images of several.

        Args:
            line: where the value begins, for faults.

        Raises:
            UnreadableError: it is an error of the vendor, or the images in it are not certain.
        """
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from self._rows_of_object(part, line)
            elif isinstance(part, list) and all(isinstance(one, dict) for one in part):
                for one in part:
                    yield from self._rows_of_object(one, line)
            else:
                yield part, False

    def _rows_of_object(self, value: dict[str, Any], line: int) -> Iterator[tuple[object, bool]]:
        answer = value.get("Response")
        answer = answer if isinstance(answer, dict) else value
        images = answer.get("ImageSet")
        if isinstance(error := answer.get("Error"), dict):
            code, message = (escaped(str(error.get(key, ""))) for key in ("Code", "Message"))
            raise unreadable(
                line,
                f"the file is an error of the vendor: {code}: {message.rstrip('.')}.",
                "Solve it, and call DescribeImages again.",
            )
        if "ImageSet" in answer and (images is None or isinstance(images, list)):
            total = answer.get("TotalCount")
            self._is_answer = True
            count = len(images or ())
            if isinstance(total, int) and total >= count > 0:
                self._shown[total] += count
            yield from ((self._counted(one), True) for one in images or ())
        elif "terraform_version" in answer or _has_outputs(answer):
            yield from ((one, True) for one in self._from_terraform(answer, line))
        else:
            # with ImageId it is an image, as the vendor describes it
            yield self._counted(answer), "ImageId" in answer

    def _counted(self, image: object) -> object:
        """Return an image; count it, if its type is known."""
        if isinstance(image, dict) and image.keys() >= {"ImageId", "ImageType"}:
            self._described += 1
            if image["ImageType"] in _NOT_EXPORTED:
                self._not_exported.append(str(image["ImageId"]))
        return image

    def _from_terraform(self, outputs: Mapping[str, Any], line: int) -> list[object]:
        """Return the images of the only output that holds images."""
        if "terraform_version" in outputs:
            raise unreadable(
                line,
                "the file is a state or a plan of Terraform.",
                f"Enqueue the ids alone: terraform show -json | {_JQ_STATE}",
            )
        names = [name for name, output in outputs.items() if _has_image(output["value"])]
        if not names:
            every = ", ".join(map(escaped, outputs))
            raise unreadable(
                line,
                f"no output of Terraform is a list of image ids: {every}.",
                "Add an output with the ids of the images, or write one id on each line.",
            )
        if len(names) == 1:
            self._other_outputs += [name for name in outputs if name not in names]
            images = _parts_of(outputs[names[0]]["value"])
            if not any(isinstance(one, list) for one in images):
                return images
            raise unreadable(
                line,
                f"the output {escaped(names[0])} of Terraform has lists in its value.",
                "Enqueue one list alone, as with terraform output -json "
                f"{escaped(names[0])} | jq '.images'.",
            )
        raise unreadable(
            line,
            f"several outputs of Terraform have image ids: {', '.join(map(escaped, names))}.",
            f"Enqueue one alone: terraform output -json {escaped(names[0])}, or jq "
            f"'.{escaped(names[0])}.value'.",
        )


def is_row(value: object) -> bool:
    """Return whether a value is an object that is one row by itself."""
    if not isinstance(value, dict):
        return False
    is_answer = value.keys() & {"Response", "ImageSet", "Error", "terraform_version"}
    return not is_answer and not _has_outputs(value)


def _has_outputs(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(
        isinstance(output, dict) and output.keys() >= {"value", "sensitive"}
        for output in value.values()
    )


def _has_image(value: object) -> bool:
    """Return whether a value is an image, or has one anywhere within."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if _is_image(one):
            return True
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return False


def _parts_of(value: object) -> list[object]:
    """Return the items of a list or the values of an object.

    Any other value, such as an object that is an image, is returned as the only item.
    """
    if isinstance(value, dict) and not _is_image(value):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _is_image(value: object) -> bool:
    if isinstance(value, dict):
        value = value.get("ImageId", value.get("image_id"))
    return isinstance(value, str) and IMAGE_ID.fullmatch(value) is not None
