"""Boxes and points as Qwen2.5-VL and Qwen2.5-Omni write them, and how well they fall on others.

Coordinates are absolute pixels of the picture as the model sees it, that is after resizing (Qwen2.5-VL report, section
2.1), x before y, from the upper left corner.
"""

import re
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]  # x1, y1, x2, y2: x1 <= x2, y1 <= y2
Point = tuple[float, float]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_FOUR = rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
# From the most explicit form to the least; of a text, those of the first form that it has.
BOXES = (rf'"bbox(?:_2d)?"\s*:\s*{_FOUR}', rf"{_PAIR}\s*,?\s*{_PAIR}", _FOUR)
POINTS = (rf'"point(?:_2d)?"\s*:\s*\[{_NUMBER},{_NUMBER}\]', rf'x1?="{_NUMBER}"\s+y1?="{_NUMBER}"', _PAIR,
          rf"\[{_NUMBER},{_NUMBER}\]")


def parse_boxes(text: str) -> list[Box]:
    """The boxes of a reply: `"bbox_2d": [x1, y1, x2, y2]` (in JSON, whole or cut off), else `(x1,y1),(x2,y2)` (with or
    without <|box_start|>), else a bare `[x1, y1, x2, y2]`. Corners in the wrong order are put right."""
    return [_ordered(found) for found in _first_form(BOXES, text)]


def parse_points(text: str) -> list[Point]:
    """The points of a reply: `"point_2d": [x, y]`, or the centres of its boxes, else `x="…" y="…"`, `(x, y)` or
    `[x, y]`."""
    explicit = _first_form(POINTS[:1], text)
    if not explicit and (boxes := parse_boxes(text)):
        return [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]
    return [(x, y) for x, y in explicit or _first_form(POINTS[1:], text)]


def _first_form(forms: Sequence[str], text: str) -> list[tuple[float, ...]]:
    for form in forms:
        if found := re.findall(form, text):
            return [tuple(map(float, numbers)) for numbers in found]
    return []


def _ordered(numbers: Sequence[float]) -> Box:
    x1, y1, x2, y2 = numbers
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def scaled(box: Sequence[float], factor: tuple[float, float]) -> Box:
    """A box on a picture of another size; `factor`: (of widths, of heights)."""
    return _ordered([n * factor[i % 2] for i, n in enumerate(box)])


def iou(a: Box, b: Box) -> float:
    """Area of the intersection over that of the union (the Jaccard index; Everingham et al. 2010, section 4.2). Boxes
    without area have 0, equal ones too."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return both / (area(a) + area(b) - both) if both else 0.0


def matched_ious(found: Sequence[Box], wanted: Sequence[Box]) -> list[float]:
    """The IoU of each pair, boxes being paired one to one so that the sum is greatest; 0 for every box left over."""
    table = np.array([[iou(a, b) for b in wanted] for a in found]).reshape(len(found), len(wanted))
    pairs = table[linear_sum_assignment(table, maximize=True)].tolist()
    return pairs + [0.0] * (max(len(found), len(wanted)) - len(pairs))


def inside(point: Point, boxes: Sequence[Box]) -> bool:
    """Whether a point lies in one of the boxes, their borders included."""
    return any(x1 <= point[0] <= x2 and y1 <= point[1] <= y2 for x1, y1, x2, y2 in boxes)
