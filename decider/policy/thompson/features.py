"""What the names of features say, and their penalties. Called by all of `thompson/`."""

from __future__ import annotations

CONSTANT = "constant"
OF_ACTION, PAIR = "A ", "CC "
"""Prefixes of the features of an action, and of products of two features. Other names have no spaces."""

OF_ID, CROSS = "I ", "CA "
"""Prefixes of an action's id, and of products of a feature of the context and one of an action."""

PAIR_PENALTY = 30.0
"""Ridge penalty of a product, where its two features have 1 each: most products add little to what the two explain."""


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


def cross(of_context: str, of_action: str) -> str:
    """The name of their product; a number, if one of them is.

    >>> cross("device=mobile", "A brand=x"), cross("age:", "A brand=x")
    ('CA device=mobile brand=x', 'CA age brand=x:')
    """
    colon = ":" if is_number(of_context) or is_number(of_action) else ""
    return f"{CROSS}{of_context.removesuffix(':')} {of_action.removeprefix(OF_ACTION).removesuffix(':')}{colon}"


def penalty(name: str) -> float:
    """The ridge penalty of a category, or of a number with variance 1.

    >>> penalty("device=mobile"), penalty("CC device=mobile segment=new")
    (1.0, 30.0)
    """
    return PAIR_PENALTY if is_pair(name) else 1.0


def field_of(name: str) -> str:
    """What shares a prior variance: the values of a category, all numbers, the products of two fields.

    >>> [field_of(name) for name in ("device=mobile", "age:", "hour:4", "A brand=x", "CC device=mobile age:")]
    ['device', ':', 'hour:', 'A brand', 'CC device :']
    >>> field_of("CA device=mobile brand=x")
    'CA device brand'
    """
    for prefix in (PAIR, CROSS):
        if name.startswith(prefix):
            return f"{prefix}{' '.join([field_of(one) for one in name.removeprefix(prefix).split(' ')])}"
    if is_number(name):
        return f"{OF_ACTION}:" if name.startswith(OF_ACTION) else ":"
    before, is_category, _ = name.partition("=")
    return before if is_category else name.partition(":")[0] + ":"
