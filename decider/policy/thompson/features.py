"""Features and what their names say. Called by all of `thompson/`."""

from __future__ import annotations

Features = tuple[tuple[str, float], ...]
"""Name and value of each; a category is a name like `device=mobile` with value 1, a number ends in `:`."""

CONSTANT = "constant"
OF_ACTION, PAIR = "A ", "CC "
"""What names of features begin with that belong to the action, or are products of two. Other names have no spaces."""

PAIR_PENALTY = 30.0
"""Of a product, where its two features have 1 each: most pairs say little that the two do not say already."""


def is_number(name: str) -> bool:
    """Whether a feature of this name is a number and no category.

    >>> is_number("age:"), is_number("device=mobile")
    (True, False)
    """
    return name.endswith(":")


def is_pair(name: str) -> bool:
    """Whether it is a product of two features.

    >>> is_pair("CC device=mobile age:"), is_pair("age:")
    (True, False)
    """
    return name.startswith(PAIR)


def penalty(name: str) -> float:
    """Of a category, or of a number with variance 1.

    >>> penalty("device=mobile"), penalty("CC device=mobile segment=new")
    (1.0, 30.0)
    """
    return PAIR_PENALTY if is_pair(name) else 1.0
