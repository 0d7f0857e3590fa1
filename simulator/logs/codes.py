"""Arrow arrays of texts -> codes, without a Python object per row. Called by `ours.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from simulator.logs.columns import Category, Codes


def codes(chunks: list[Any]) -> Codes:
    """Equal where the texts are, in the order in which they came; for texts that nobody needs to see again.

    >>> codes([pa.array(["b", "a"]), pa.array(["b"])]).tolist()
    [0, 1, 0]
    """
    return _encoded(chunks)[0]


def category(chunks: list[Any]) -> Category:
    """Codes of Arrow arrays of texts; null and the empty text are not given.

    >>> category([pa.array(["web", None]), pa.array(["", "app"])])
    Category(codes=array([ 0, -1, -1,  1], dtype=int32), values=('web', 'app'))
    """
    found, values = _encoded(chunks)
    return _without_empty(found, values.to_pylist())


def _encoded(chunks: list[Any]) -> tuple[Codes, Any]:
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary


def _without_empty(codes: Codes, values: list[str]) -> Category:
    if "" not in values:
        return Category(codes, tuple(values))
    empty = values.index("")
    renumbered = np.arange(len(values) + 1, dtype=np.int32)
    renumbered[empty] = renumbered[-1] = -1
    renumbered[empty + 1 : -1] -= 1
    return Category(renumbered[codes], tuple([value for value in values if value]))
