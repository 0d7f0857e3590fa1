"""How arrays are stored and cached: JSON as bytes, symmetric matrices as halves, caches of bounded size.

Called by the other modules of `thompson/`.
"""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from decider.policy.features import Vector

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

CACHE = 2_000
"""Entries of a cache, at most."""

CACHE_FLOATS = 1_000_000
"""Size of all entries of a cache, at most, in floats of 8 bytes: a context may have 100 features."""

FEATURE = 20
"""Memory of one feature (a tuple, its value, their places in other tuples), in floats; its name comes on top."""

LARGEST_SHARE = 8
"""What would take more than this part of a cache is not kept: the others would have to go for its sake."""

_NAME = itemgetter(0)

K = TypeVar("K")
V = TypeVar("V")


class Cache(dict[K, V]):
    """A dict that is emptied when its entries become too many or too large."""

    def __init__(self) -> None:
        super().__init__()
        self._floats = 0

    def put(self, key: K, value: V, *, floats: int) -> V:
        """Keep the value, which holds about so many floats."""
        if floats > CACHE_FLOATS // LARGEST_SHARE:
            return value
        if len(self) >= CACHE or self._floats + floats > CACHE_FLOATS:
            self.clear()
        self._floats += floats
        self[key] = value
        return value

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._floats = 0

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 8 * self._floats

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled empty: what it holds can be computed again."""
        return Cache, ()


def floats_of(features: Vector) -> int:
    """What a vector takes, in floats. A name may have hundreds of characters.

    >>> floats_of((("device=mobile", 1.0),))
    26
    """
    # A character takes at most half a float. Only `map`s, since this is computed for whatever is not found in a cache.
    return FEATURE * len(features) + sum(map(len, map(_NAME, features))) // 2


def json_to_array(value: Any) -> NDArray[np.uint8]:
    """A JSON value as a byte array, so that it fits into the .npz.

    >>> json_from_array(json_to_array({"places": ["constant"]}))
    {'places': ['constant']}
    """
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def json_from_array(array: NDArray[Any]) -> Any:
    """The value that `json_to_array` was given."""
    return json.loads(array.tobytes())


def pack(matrices: Floats, size: int) -> Floats:
    """The first `size` rows and columns of (n, d, d): (n, size (size + 1) / 2) if all are symmetric to the last bit,
    else (n, size, size).

    >>> pack(np.array([[[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 9.0]]]), 2).tolist()
    [[2.0, 1.0, 3.0]]
    """
    # Half of the matrix is stored only where the other half is its mirror image: after save and load a policy must have
    # the same bits. Compared as integers, since 0.0 == -0.0.
    used = np.ascontiguousarray(matrices[:, :size, :size])
    bits = used.view(np.int64)
    return used[:, *np.tril_indices(size)] if np.array_equal(bits, bits.transpose(0, 2, 1)) else used


def unpack(packed: Floats, size: int, outside: Floats) -> Floats:
    """(n, d, d) again: what `pack` was given, with `outside` (d, d) in the rows and columns that it left out.

    >>> unpack(np.array([[2.0, 1.0, 3.0]]), 2, np.eye(3)).tolist()
    [[[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    matrices = np.tile(outside, (len(packed), 1, 1))
    if packed.ndim == 2:
        rows, columns = np.tril_indices(size)
        matrices[:, rows, columns] = matrices[:, columns, rows] = packed
    else:
        matrices[:, :size, :size] = packed[:, :size, :size]  # a model of version 0.1.0 has all rows and columns
    return matrices
