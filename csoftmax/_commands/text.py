"""Text that fits into a line of a terminal, for the command line."""

import textwrap
from collections.abc import Iterable

WIDTH = 80
LISTED = 10  # items of a list


def shortened(value: object, width: int) -> str:
    """As text, and dots in place of an end that is too much."""
    text = str(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def some(items: Iterable[object], width: int = 40) -> str:
    """A list of what there is; of many items the first, and how many more."""
    texts = [shortened(item, width) for item in items]
    more = f" and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return ", ".join(texts[:LISTED]) + more


def field(name: str, value: str, width: int = 11) -> str:
    """A name in a column of this width, and what belongs to it over as many lines as that takes."""
    return textwrap.fill(value, WIDTH, initial_indent=f"{name:<{width - 1}} ", subsequent_indent=" " * width)
