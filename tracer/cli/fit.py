"""Make a table as wide as the terminal: what matters least goes first, then texts are shortened."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracer.cli.output import Column

_BETWEEN = 2  # blanks between columns of tabulate's "simple"
_AROUND_TITLE = 2  # tabulate.MIN_PADDING: a column is that much wider than its title


def head(text: str, width: int) -> str:
    """Return a text's begin."""
    return text if len(text) <= width else text[: width - 1] + "…"


def tail(text: str, width: int) -> str:
    """Return a text's end: of a path the file and the line."""
    return text if len(text) <= width else "…" + text[1 - width :]


def wrapped(text: str, width: int | None) -> str:
    """Return a text in lines of at most `width` characters; None: in one."""
    if width is None:
        return text
    return textwrap.fill(text, width, break_on_hyphens=False)


def fit(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int | None
) -> tuple[list[Column], list[list[str]]]:
    """Choose the columns that have room, and make their texts fit.

    Args:
        columns: what the table shows, in its order.
        cells: a text for each column, in each row.
        width: characters in a line; None: whatever it takes.

    Returns:
        the columns that stay, and their texts.

    """
    natural = [
        max([len(column.title) + _AROUND_TITLE, *(len(row[place]) for row in cells)])
        for place, column in enumerate(columns)
    ]
    every = [place for place, column in enumerate(columns) if not column.instead]
    shown = every
    if width is not None and _line(natural[place] for place in every) > width:
        least = [_least(c, size) for c, size in zip(columns, natural, strict=True)]
        shown = _chosen(columns, least, every, width)
        _shorten(natural, least, shown, width)
    texts = [
        [_text(columns[place], row[place], natural[place]) for place in shown] for row in cells
    ]
    return [columns[place] for place in shown], texts


def _line(sizes: Iterable[int]) -> int:
    found = list(sizes)
    return sum(found) + _BETWEEN * (len(found) - 1)


def _least(column: Column, natural: int) -> int:
    if column.least is None:
        return natural
    return min(natural, max(column.least, len(column.title) + _AROUND_TITLE))


def _chosen(
    columns: Sequence[Column], least: Sequence[int], every: list[int], width: int
) -> list[int]:
    """Return the places of columns to show; those of the highest rank go first, together."""
    shown = every
    for rank in sorted({columns[place].rank for place in every} - {0}, reverse=True):
        if _line(least[place] for place in shown) <= width:
            break
        shown = [
            place
            for place, column in enumerate(columns)
            if column.rank < rank and (not column.instead or column.instead >= rank)
        ]
    return shown


def _shorten(sizes: list[int], least: Sequence[int], shown: Sequence[int], width: int) -> None:
    """Take from the widest text, one character at a time, until the line fits or none can give."""
    over = _line(sizes[place] for place in shown) - width
    for _ in range(over):
        able = [place for place in shown if sizes[place] > least[place]]
        if not able:
            return
        sizes[max(able, key=lambda place: sizes[place])] -= 1


def _text(column: Column, text: str, size: int) -> str:
    return text if len(text) <= size else column.fit(text, size)
