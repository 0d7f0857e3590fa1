"""Classification data sets that ship inside the wheels of scikit-learn and river, as examples with classes.

Both wheels are pinned and only read (see `wheels.py`). Of river only what lies in its wheel and has one class an
example: its Yeast has several, its SolarFlare counts, the rest it downloads. Called by `simulator/worlds`.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from decider.types import Features, FeatureValue
from simulator.datasets.wheels import ONE_PLATFORM, DatasetError, Wheel, read

SCIKIT_LEARN = Wheel(
    requirement="scikit-learn==1.9.1",
    file="scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    sha256="52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    options=ONE_PLATFORM,
)
RIVER = Wheel(
    requirement="river==0.26.1",
    file="river-0.26.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="6a11e1a9749beec3ea138efeb0205b2c5cea8d424e9deee306c8980faec01bef",
    options=ONE_PLATFORM,
)
LICENCE = "BSD-3-Clause"
"""Of both wheels; of most of the data in them they say none."""

Labelled = Iterable[tuple[Features, str]]


@dataclass(frozen=True)
class Examples:
    """about: what they are, and where they are from. classes: names; labels: (examples,), index into them."""

    about: str
    features: tuple[Features, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Set:
    """parse: the content of `file` in `wheel` -> examples with labels. classes: better names of some labels."""

    about: str
    wheel: Wheel
    file: str
    parse: Callable[[bytes], Labelled]
    classes: Mapping[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """What `load` takes.

    >>> names()[:3]
    ['bananas', 'breast-cancer', 'digits']
    """
    return sorted(_SETS)


@lru_cache(maxsize=4)
def load(name: str) -> Examples:
    """All examples, in the order of the file. Raises DatasetError.

    >>> load("digit")
    Traceback (most recent call last):
    simulator.datasets.wheels.DatasetError: there is no data set 'digit'; there are bananas, breast-cancer, digits, \
image-segments, iris, phishing, shuttle, wine
    """
    if name not in _SETS:
        raise DatasetError(f"there is no data set {name!r}; there are {', '.join(names())}")
    one = _SETS[name]
    labelled = list(one.parse(read(one.wheel, one.file)))
    found = sorted({label for _, label in labelled})
    index = {label: number for number, label in enumerate(found)}
    return Examples(
        about=f"{one.about}; from the wheel of {one.wheel.requirement.replace('==', ' ')} ({LICENCE})",
        features=tuple([features for features, _ in labelled]),
        labels=np.array([index[label] for _, label in labelled]),
        classes=tuple([one.classes.get(label, label) for label in found]),
    )


def _value(text: str) -> FeatureValue:
    """A number where it is one, otherwise a category."""
    try:
        return float(text)
    except ValueError:
        return text


def _features(names: Sequence[str], values: Sequence[str]) -> Features:
    return dict(zip(names, map(_value, values), strict=True))


def _lines(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def _class_numbers(names: Sequence[str]) -> Callable[[bytes], Labelled]:
    """As scikit-learn keeps them: the first line ends in the names of the classes, each line in the class's number."""

    def parse(content: bytes) -> Labelled:
        (_, _, *classes), *lines = _lines(content)
        return [(_features(names, values), classes[int(label)]) for *values, label in lines]

    return parse


def _gzipped_numbers(names: Sequence[str]) -> Callable[[bytes], Labelled]:
    """Numbers alone, the last one is the class."""
    return lambda content: [(_features(names, values), label) for *values, label in _lines(gzip.decompress(content))]


def _csv_with_header(unpack: Callable[[bytes], bytes]) -> Callable[[bytes], Labelled]:
    """As river keeps them: the first line has the names, the last column is the class."""

    def parse(content: bytes) -> Labelled:
        (*names, _), *lines = _lines(unpack(content))
        return [(_features(names, values), label) for *values, label in lines]

    return parse


def _only_file(content: bytes) -> bytes:
    """The first one of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0])


def _libsvm(content: bytes) -> Labelled:
    """`LABEL 1:VALUE 2:VALUE`."""
    lines = [line.split() for line in _only_file(content).decode().splitlines()]
    return [({f"x{name}": float(value) for name, value in _pairs(pairs)}, label) for label, *pairs in lines]


def _pairs(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        name, _, value = text.partition(":")
        yield name, value


_IRIS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
_WINE = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280_od315_of_diluted_wines",
    "proline",
)
_CELL = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
_CELLS = [f"{kind}_{name}" for kind, name in product(("mean", "error", "worst"), _CELL)]
_PIXELS = [f"pixel_{row}_{column}" for row, column in product(range(8), range(8))]

_SETS = {
    "iris": _Set(
        "the species of irises (Fisher 1936)", SCIKIT_LEARN, "sklearn/datasets/data/iris.csv", _class_numbers(_IRIS)
    ),
    "wine": _Set(
        "the growers of wines, by chemistry (UCI)",
        SCIKIT_LEARN,
        "sklearn/datasets/data/wine_data.csv",
        _class_numbers(_WINE),
    ),
    "breast-cancer": _Set(
        "tumours by the shape of their cells (UCI, Wisconsin diagnostic)",
        SCIKIT_LEARN,
        "sklearn/datasets/data/breast_cancer.csv",
        _class_numbers(_CELLS),
    ),
    "digits": _Set(
        "handwritten digits of 8 by 8 pixels (UCI)",
        SCIKIT_LEARN,
        "sklearn/datasets/data/digits.csv.gz",
        _gzipped_numbers(_PIXELS),
    ),
    "bananas": _Set("two clusters shaped like bananas (OpenML 1460)", RIVER, "river/datasets/banana.zip", _libsvm),
    "phishing": _Set(
        "websites that phish (UCI)",
        RIVER,
        "river/datasets/phishing.csv.gz",
        _csv_with_header(gzip.decompress),
        {"0": "honest", "1": "phishing"},
    ),
    "image-segments": _Set(
        "what pieces of outdoor images show (UCI, Statlog)",
        RIVER,
        "river/datasets/segment.csv.zip",
        _csv_with_header(_only_file),
    ),
    "shuttle": _Set(
        "anomalies in readings from a space shuttle, 7 % of them (UCI, Statlog)",
        RIVER,
        "river/datasets/shuttle.csv.gz",
        _csv_with_header(gzip.decompress),
        {"0": "normal", "1": "anomaly"},
    ),
}
