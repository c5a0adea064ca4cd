"""Calibration targets: ChArUco boards and AprilGrids in Kalibr's layout; how they are drawn and how they are found.

A target's frame is its maker's: ChArUco as OpenCV has it (origin in the upper left, x right, y down, z into the board),
an AprilGrid as Kalibr has it (origin in the lower left corner of tag 0, x right, y up, z towards the viewer).
"""

import abc
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from worldpilot.calibration.markers import (
    DICTIONARIES,
    TAGS,
    Detection,
    Floats,
    GreyImage,
    Ints,
    agreeing,
    dictionary,
    find_markers,
    reads,
    refine,
)
from worldpilot.errors import InvalidInput, UnknownName

TAG_BORDER = 2  # [bits], of the tags in an AprilGrid that we draw; Kalibr's


class Target(abc.ABC):
    """A flat pattern of markers with corners that can be located to a fraction of a pixel."""

    @property
    @abc.abstractmethod
    def points(self) -> Floats:
        """(P, 3) [m], the corners by their id, in the target's frame; z is 0."""

    @property
    @abc.abstractmethod
    def edges(self) -> Ints:
        """(E, 3): pairs of corners with a straight edge from black to white between them; 0 along x, 1 along y."""

    @property
    @abc.abstractmethod
    def clear(self) -> float:
        """How far to each side of an edge, and around a corner, nothing else is drawn [m]."""

    @property
    @abc.abstractmethod
    def rectangles(self) -> Floats:
        """(R, 4) [m]: x, y, width, height of what is black, without overlaps; origin upper left, y down."""

    @property
    @abc.abstractmethod
    def size(self) -> tuple[float, float]:
        """Width and height of the drawing [m]."""

    @property
    @abc.abstractmethod
    def to_drawing(self) -> Floats:
        """(3, 3): homogeneous x, y of the target's frame to those of the drawing [m]."""

    @property
    @abc.abstractmethod
    def markers(self) -> tuple[Ints, Floats]:
        """Ids (M,), and corners (M, 4, 2) [m] in the target's frame, clockwise from the marker's own upper left."""

    @abc.abstractmethod
    def detect(self, image: GreyImage) -> Detection:
        """The target's corners in an image; none if it is not seen."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `load` reads."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """For people."""

    def draw(self, pixel: float, margin: float) -> tuple[GreyImage, Floats]:
        """The target as an image.

        Args:
            pixel: length of a pixel's side [m].
            margin: white around the drawing [m].

        Returns:
            The image, and (3, 3) that takes homogeneous x, y of the target's frame [m] to pixels.
        """
        width, height = np.ceil((np.array(self.size) + 2 * margin) / pixel).astype(int)
        black = np.zeros((height, width), np.float32)  # share of each pixel
        for x, y, w, h in (self.rectangles + [margin, margin, 0, 0]) / pixel:
            across, left = _covered(x, x + w)
            down, top = _covered(y, y + h)
            black[top : top + len(down), left : left + len(across)] += np.outer(down, across)
        image = np.round(255 * (1 - black.clip(0, 1))).astype(np.uint8)
        shift = np.array([[1 / pixel, 0, margin / pixel - 0.5], [0, 1 / pixel, margin / pixel - 0.5], [0, 0, 1]])
        return image, shift @ self.to_drawing


@dataclass(frozen=True)
class Charuco(Target):
    """A chessboard with markers in its white squares.

    Args:
        columns, rows: squares.
        square, marker: sides [m].
        dictionary: of the markers, as OpenCV names it ("DICT_5X5_100").
        legacy: a board of OpenCV before 4.6 with an even number of rows, whose upper left square is white.
    """

    columns: int = 9
    rows: int = 6
    square: float = 0.028
    marker: float = 0.021
    dictionary: str = "DICT_5X5_100"
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.columns < 3 or self.rows < 3:
            raise InvalidInput(f"charuco: needs at least 3 x 3 squares, got {self.columns} x {self.rows}")
        if not 0 < self.marker < 0.95 * self.square < np.inf:
            raise InvalidInput(
                f"charuco: sides in metres, the marker's below 95 % of the square's; got {self.marker}, {self.square}"
            )
        if self.dictionary not in DICTIONARIES:
            raise UnknownName("dictionary of markers", self.dictionary, DICTIONARIES)
        if (needed := self.columns * self.rows // 2) > (has := len(dictionary(self.dictionary).bytesList)):
            raise InvalidInput(f"charuco: {needed} markers are needed, {self.dictionary} has {has}; take a larger one")

    @cached_property
    def board(self) -> cv2.aruco.CharucoBoard:
        """OpenCV's."""
        sides = self.square, self.marker
        board = cv2.aruco.CharucoBoard((self.columns, self.rows), *sides, dictionary(self.dictionary))
        board.setLegacyPattern(self.legacy)
        return board

    @property
    def points(self) -> Floats:
        return np.asarray(self.board.getChessboardCorners(), np.float64).reshape(-1, 3)

    @property
    def edges(self) -> Ints:
        across, down = self.columns - 1, self.rows - 1
        ids = np.arange(across * down).reshape(down, across)
        along_x = np.stack([ids[:, :-1].ravel(), ids[:, 1:].ravel(), np.zeros(down * (across - 1), int)], 1)
        along_y = np.stack([ids[:-1].ravel(), ids[1:].ravel(), np.ones((down - 1) * across, int)], 1)
        return np.concatenate([along_x, along_y]).astype(np.int64)

    @property
    def clear(self) -> float:
        return (self.square - self.marker) / 2

    @property
    def markers(self) -> tuple[Ints, Floats]:
        ids = np.asarray(self.board.getIds(), np.int64).ravel()
        return ids, np.asarray(self.board.getObjPoints(), np.float64).reshape(-1, 4, 3)[:, :, :2]

    @property
    def rectangles(self) -> Floats:
        ids, corners = self.markers
        white = {tuple(place) for place in np.floor(corners.mean(1) / self.square).astype(int)}
        grid = itertools.product(range(self.columns), range(self.rows))
        squares = [(c * self.square, r * self.square, self.square, self.square) for c, r in grid if (c, r) not in white]
        known = dictionary(self.dictionary)
        bits = known.markerSize + 2
        drawn = [
            _cells(cv2.aruco.generateImageMarker(known, int(i), bits) == 0, corner[0], self.marker)
            for i, corner in zip(ids, corners, strict=True)
        ]
        return np.concatenate([squares, *drawn])

    @property
    def size(self) -> tuple[float, float]:
        return self.columns * self.square, self.rows * self.square

    @property
    def to_drawing(self) -> Floats:
        return np.eye(3)

    def detect(self, image: GreyImage) -> Detection:
        ids, quads = find_markers(image, self.dictionary, border=1)
        mask = agreeing(self, ids, quads)
        strays = int((~mask).sum())
        ids, quads = ids[mask], quads[mask]
        if not len(ids):
            return Detection(np.empty(0, np.int64), np.empty((0, 2)), strays)
        detector = cv2.aruco.CharucoDetector(self.board)
        given = [quad.astype(np.float32).reshape(1, 4, 2) for quad in quads]
        corners, corner_ids, *_ = detector.detectBoard(
            image, markerCorners=given, markerIds=ids.astype(np.int32).reshape(-1, 1)
        )
        if corners is None or corner_ids is None:
            return Detection(np.empty(0, np.int64), np.empty((0, 2)), strays)
        found = refine(
            self.points,
            self.clear,
            image,
            np.asarray(corner_ids, np.int64).ravel(),
            np.asarray(corners, np.float64).reshape(-1, 2),
        )
        return Detection(found.ids, found.corners, strays)

    def to_dict(self) -> dict[str, Any]:
        return {
            "target_type": "charuco",
            "columns": self.columns,
            "rows": self.rows,
            "square": self.square,
            "marker": self.marker,
            "dictionary": self.dictionary,
            "legacy": self.legacy,
        }

    def __str__(self) -> str:
        side = f"{1e3 * self.square:g} mm"
        return (
            f"ChArUco {self.columns} x {self.rows}, squares {side}, markers {1e3 * self.marker:g} mm, {self.dictionary}"
        )


@dataclass(frozen=True)
class AprilGrid(Target):
    """Tags of the family 36h11 with black squares between their corners, in Kalibr's layout.

    Args:
        columns, rows: tags.
        tag: side of a tag's black square [m].
        spacing: gap between two tags as a share of that side.
    """

    columns: int = 6
    rows: int = 6
    tag: float = 0.024
    spacing: float = 0.3

    def __post_init__(self) -> None:
        if self.columns < 2 or self.rows < 2:
            raise InvalidInput(f"aprilgrid: needs at least 2 x 2 tags, got {self.columns} x {self.rows}")
        if not (0 < self.tag < np.inf and 0.1 <= self.spacing <= 1):
            raise InvalidInput(
                f"aprilgrid: the tag's side in metres, the spacing 0.1 to 1 of it; got {self.tag}, {self.spacing}"
            )
        if self.columns * self.rows > (has := len(dictionary(TAGS).bytesList)):
            raise InvalidInput(f"aprilgrid: the family has {has} tags, {self.columns} x {self.rows} are asked for")

    @property
    def pitch(self) -> float:
        """From one tag to the next [m]."""
        return self.tag * (1 + self.spacing)

    @property
    def points(self) -> Floats:
        corners = self.markers[1].reshape(-1, 2)
        return np.concatenate([corners, np.zeros((len(corners), 1))], 1)

    @property
    def markers(self) -> tuple[Ints, Floats]:
        ids = np.arange(self.columns * self.rows)
        lower_left = np.stack([ids % self.columns, ids // self.columns], 1) * self.pitch
        square = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * self.tag  # clockwise for a viewer, from the upper left
        return ids, lower_left[:, None] + square

    @property
    def edges(self) -> Ints:
        sides = np.array([[0, 1, 0], [3, 2, 0], [0, 3, 1], [1, 2, 1]])
        tags = np.arange(self.columns * self.rows)
        return (sides + np.stack([4 * tags, 4 * tags, 0 * tags], 1)[:, None]).reshape(-1, 3)

    @property
    def clear(self) -> float:
        return self._clear(TAG_BORDER)

    def _clear(self, border: int) -> float:
        return 0.75 * self.tag * min(border / (6 + 2 * border), self.spacing)

    @property
    def rectangles(self) -> Floats:
        gap, (ids, corners) = self.spacing * self.tag, self.markers
        flip = self.to_drawing
        squares = [
            (c * self.pitch, r * self.pitch, gap, gap)
            for c, r in itertools.product(range(self.columns + 1), range(self.rows + 1))
        ]
        drawn = []
        for i, quad in zip(ids, corners, strict=True):
            # OpenCV has this family upside down
            code = np.rot90(cv2.aruco.generateImageMarker(dictionary(TAGS), int(i), 8)[1:-1, 1:-1], 2)
            black = np.pad(code == 0, TAG_BORDER, constant_values=True)
            drawn.append(_cells(black, (flip @ [*quad[0], 1])[:2], self.tag))
        return np.concatenate([squares, *drawn])

    @property
    def size(self) -> tuple[float, float]:
        gap = self.spacing * self.tag
        return self.columns * self.pitch + gap, self.rows * self.pitch + gap

    @property
    def to_drawing(self) -> Floats:
        gap = self.spacing * self.tag
        return np.array([[1, 0, gap], [0, -1, self.size[1] - gap], [0, 0, 1]])

    def detect(self, image: GreyImage) -> Detection:
        best = Detection(np.empty(0, np.int64), np.empty((0, 2)))
        for border in (TAG_BORDER, 1):  # other makers print the tags with one bit around them
            ids, quads = find_markers(image, TAGS, border, constants=(35, 7))
            turned = [np.roll(quads, turn, 1) for turn in range(4)]  # or another way up
            masks = [agreeing(self, ids, quads) for quads in turned]
            turn = int(np.argmax([mask.sum() for mask in masks]))
            mask = masks[turn]
            strays = int((~mask).sum())
            ids, quads = self._recover(image, border, ids[mask], turned[turn][mask])
            found = refine(
                self.points, self._clear(border), image, (4 * ids[:, None] + np.arange(4)).ravel(), quads.reshape(-1, 2)
            )
            if len(found.ids):
                return Detection(found.ids, found.corners, strays)
            best = Detection(best.ids, best.corners, max(best.strays, strays))
        return best

    def _recover(self, image: GreyImage, border: int, ids: Ints, quads: Floats) -> tuple[Ints, Floats]:
        """Also the tags that were overlooked: looked for where their neighbours have them, and read there."""
        _, known = self.markers
        found = dict(zip(ids.tolist(), quads, strict=True))
        places = np.stack([np.arange(len(known)) % self.columns, np.arange(len(known)) // self.columns], 1)
        waiting = [i for i in range(len(known)) if i not in found]
        while waiting:
            new = {}
            for i in waiting:
                near = [n for n in found if np.abs(places[n] - places[i]).max() <= 1]
                if len(near) < 2:
                    continue
                there = np.concatenate([found[n] for n in near])
                homography = cv2.findHomography(np.concatenate([known[n] for n in near]), there)[0]
                if homography is None:
                    continue
                quad = cv2.perspectiveTransform(known[i].reshape(-1, 1, 2), homography).reshape(4, 2).astype(np.float64)
                if reads(image, quad, i, border):
                    new[i] = quad
            if not new:
                break
            found |= new
            waiting = [i for i in waiting if i not in found]
        kept = sorted(found)
        return np.array(kept, np.int64), np.array([found[i] for i in kept]).reshape(-1, 4, 2)

    def to_dict(self) -> dict[str, Any]:
        return {
            "target_type": "aprilgrid",
            "tagCols": self.columns,
            "tagRows": self.rows,
            "tagSize": self.tag,
            "tagSpacing": self.spacing,
        }

    def __str__(self) -> str:
        return f"AprilGrid {self.columns} x {self.rows}, tags {1e3 * self.tag:g} mm, gaps {self.spacing:g} of that"


_KEYS = {
    "charuco": (Charuco, {key: key for key in ("columns", "rows", "square", "marker", "dictionary", "legacy")}),
    "aprilgrid": (AprilGrid, {"tagCols": "columns", "tagRows": "rows", "tagSize": "tag", "tagSpacing": "spacing"}),
}


def load(source: str | Path) -> Target:
    """The target that a YAML file describes, or YAML in braces; an AprilGrid's file is Kalibr's.

    Raises:
        InvalidInput: there is no such file, a key is missing or unknown, a value doesn't fit.
    """
    text = str(source)
    try:
        data = yaml.safe_load(text if text.lstrip().startswith("{") else Path(source).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"target: {source} cannot be read: {error}") from error
    return from_dict(data)


def from_dict(data: Any) -> Target:
    """The target that `data` describes.

    Raises:
        InvalidInput: a key is missing or unknown, a value doesn't fit.
    """
    if not isinstance(data, Mapping) or data.get("target_type") not in _KEYS:
        raise InvalidInput(f"target: a mapping with target_type {' or '.join(_KEYS)} is needed, got {str(data)[:80]!r}")
    cls, keys = _KEYS[data["target_type"]]
    given = {key: value for key, value in data.items() if key != "target_type"}
    needed = [key for key in keys if key not in ("legacy", "dictionary")]
    if missing := [key for key in needed if key not in given]:
        raise InvalidInput(f"target: {data['target_type']} lacks {', '.join(missing)}; it has {', '.join(keys)}")
    if unknown := [key for key in given if key not in keys]:
        raise InvalidInput(f"target: {data['target_type']} has no {', '.join(unknown)}; it has {', '.join(keys)}")
    for key, value in given.items():
        kind = {"dictionary": str, "legacy": bool}.get(key, int if keys[key] in ("columns", "rows") else (int, float))
        if not isinstance(value, kind) or (isinstance(value, bool) and key != "legacy"):
            raise InvalidInput(f"target: {key} is {value!r}; lengths are numbers in metres, counts whole numbers")
    if "dictionary" in given:
        given["dictionary"] = dictionary_name(given["dictionary"])
    return cls(**{keys[key]: value for key, value in given.items()})


def dictionary_name(name: str) -> str:
    """OpenCV's name of a dictionary of markers: "5x5_100" is "DICT_5X5_100".

    Raises:
        UnknownName: there is none.
    """
    full = name.upper() if name.upper().startswith("DICT_") else f"DICT_{name.upper()}"
    if full not in DICTIONARIES:
        raise UnknownName("dictionary of markers", name, DICTIONARIES)
    return full


def _cells(black: npt.NDArray[np.bool_], corner: Any, side: float) -> Floats:
    """Rectangles (R, 4) of the black cells (b, b) of a marker, a run along a row each."""
    cell, found = side / len(black), []
    for row, line in enumerate(black):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        found += [(start, row, end - start, 1) for start, end in steps.reshape(-1, 2)]
    return np.array(found) * cell + [*corner, 0, 0]


def _covered(low: float, high: float) -> tuple[Floats, int]:
    """The share of each pixel that lies in [low, high], and the first of them."""
    first = int(np.floor(low + 1e-9))
    pixels = np.arange(first, int(np.ceil(high - 1e-9)))
    return np.minimum(high, pixels + 1) - np.maximum(low, pixels), first
