"""Find the images in JSON that other tools write: answers of the vendor, outputs of Terraform.

tccli prints an answer without the outer ``Response``, pretty-printed; its ``--filter`` and jq take
any part out of it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.manifest.column_rules import escaped
from orchestrator.manifest.row_faults import unreadable

IMAGE_ID = re.compile(r"img-[0-9a-z]+")
_JQ_STATE = """jq '[.. | objects | select(.type? == "tencentcloud_image") | .values.id]'"""


class ImageLists:
    """Takes values of JSON apart into rows; counts what the answers among them say.

    Args:
        line: where the values begin, for faults.
    """

    def __init__(self, line: int) -> None:
        self._line = line
        self._total = 0
        self._shown = 0
        self._is_answer = False
        self.ignored: list[str] = []
        """Names of Terraform's outputs that were not taken."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the answers."""
        if self._total <= self._shown:
            return ()
        note = (
            f"The answer of DescribeImages has {self._shown} of {self._total} images. Get the "
            "others with --Offset and --Limit, and enqueue them too."
        )
        return (note,)

    def check_not_empty(self, count: int) -> None:
        """Raise an error if answers were read, but not an image."""
        if self._is_answer and not count:
            raise unreadable(
                self._line,
                "the answer of DescribeImages has no image.",
                "Check its region, profile and filters.",
            )

    def rows(self, value: object) -> Iterator[tuple[object, bool]]:
        """Yield each row in a value, and whether its unknown keys are to be ignored.

        A row is an object or the id of an image; anything else is yielded as it is.

        Raises:
            UnreadableError: it is an error of the vendor, or the images in it are not certain.
        """
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from self._rows_of_object(part)
            elif isinstance(part, list) and all(isinstance(one, str | dict) for one in part):
                yield from ((one, False) for one in part)
            else:
                yield part, False

    def _rows_of_object(self, value: dict[str, Any]) -> Iterator[tuple[object, bool]]:
        answer = value.get("Response")
        answer = answer if isinstance(answer, dict) else value
        images = answer.get("ImageSet")
        if isinstance(error := answer.get("Error"), dict):
            code, message = (escaped(str(error.get(key, ""))) for key in ("Code", "Message"))
            raise unreadable(
                self._line,
                f"the file is an error of the vendor: {code}: {message.rstrip('.')}.",
                "Solve it, and call DescribeImages again.",
            )
        if "ImageSet" in answer and (images is None or isinstance(images, list)):
            total = answer.get("TotalCount")
            self._is_answer = True
            self._total = max(self._total, total if isinstance(total, int) else 0)
            self._shown += len(images or ())
            yield from ((one, True) for one in images or ())
        elif "terraform_version" in answer or _has_outputs(answer):
            yield from ((one, True) for one in self._from_terraform(answer))
        else:
            yield answer, is_described(answer)

    def _from_terraform(self, outputs: Mapping[str, Any]) -> list[object]:
        """Return the images of the only output that holds images."""
        if "terraform_version" in outputs:
            raise unreadable(
                self._line,
                "the file is a state or a plan of Terraform.",
                f"Enqueue the ids alone: terraform show -json | {_JQ_STATE}",
            )
        found = {name: _images_in(output["value"]) for name, output in outputs.items()}
        names = [name for name, images in found.items() if images]
        if len(names) == 1:
            self.ignored += [name for name in found if name not in names]
            return found[names[0]]
        if not names:
            raise unreadable(
                self._line,
                f"no output of Terraform is a list of image ids: {', '.join(map(escaped, found))}.",
                "Add an output with the ids of the images, or write one id on each line.",
            )
        raise unreadable(
            self._line,
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


def is_described(row: Mapping[str, object]) -> bool:
    """Return whether a row has the keys of an image as the vendor describes it."""
    return "ImageId" in row


def _has_outputs(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(
        isinstance(output, dict) and output.keys() >= {"value", "sensitive"}
        for output in value.values()
    )


def _images_in(value: object) -> list[object]:
    """Return the images of a list, of an object by names, or of a single id; else nothing."""
    if isinstance(value, dict) and not _is_image(value):
        value = list(value.values())
    images = value if isinstance(value, list) else [value]
    return images if all(map(_is_image, images)) else []


def _is_image(value: object) -> bool:
    if isinstance(value, dict):
        value = value.get("ImageId", value.get("image_id"))
    return isinstance(value, str) and IMAGE_ID.fullmatch(value) is not None
