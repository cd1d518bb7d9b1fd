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
        names = [name for name, output in outputs.items() if _has_image(output["value"])]
        if not names:
            every = ", ".join(map(escaped, outputs))
            raise unreadable(
                self._line,
                f"no output of Terraform is a list of image ids: {every}.",
                "Add an output with the ids of the images, or write one id on each line.",
            )
        if len(names) == 1:
            self.ignored += [name for name in outputs if name not in names]
            images = _parts_of(outputs[names[0]]["value"])
            if not any(isinstance(one, list) for one in images):
                return images
            raise unreadable(
                self._line,
                f"the output {escaped(names[0])} of Terraform has lists in its value.",
                "Enqueue one list alone, as with terraform output -json "
                f"{escaped(names[0])} | jq '.images'.",
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
    """Return the parts of a list or of an object by names; any other value is its only part."""
    if isinstance(value, dict) and not _is_image(value):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _is_image(value: object) -> bool:
    if isinstance(value, dict):
        value = value.get("ImageId", value.get("image_id"))
    return isinstance(value, str) and IMAGE_ID.fullmatch(value) is not None
