"""Boxes of a source's column, as DataComp's face_bboxes: what is blurred of an image."""

import json
from typing import Any

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.values import as_text, is_text, values_of
from pairmill.workers.download.crawl import Boxes
from pairmill.workers.download.rendition import boxes_of

INVALID_BOXES = "invalid_boxes"  # the error of a row: an image is not kept with its faces
# of the fractions; detectors go a little beyond an edge, and pixels far
LOWEST, HIGHEST = -1.0, 2.0


def column_boxes(column: pa.ChunkedArray) -> list[Boxes | None]:
    """The boxes of each row, by ``rendition.boxes_of``; None where the value is no list of boxes.
    The column: lists of lists of four numbers, or JSON text of such; null has no boxes. Raises
    UserError for another type."""
    kind = column.type
    text = is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)
    if not (text or pa.types.is_null(kind) or _is_boxes(kind)):
        raise UserError(
            f"the column of boxes is of type {kind}, and neither lists of four numbers nor text"
        )
    return [_boxes(value) for value in values_of(as_text(column) if text else column)]


def _is_boxes(kind: pa.DataType) -> bool:
    """Lists of lists of numbers; lists that are all empty are of null."""
    types = pa.types
    for _ in range(2):
        if not _is_list(kind):
            return False
        kind = kind.value_type
        if types.is_null(kind):
            return True
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _boxes(value: Any) -> Boxes | None:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            return None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(_is_box(box) for box in value):
        return None
    return boxes_of(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_fraction, value))


def _is_fraction(number: Any) -> bool:
    """NaN compares false with all."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    return LOWEST <= number <= HIGHEST
