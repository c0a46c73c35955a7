"""Texts of the traced program, for people: they may be anything, and a terminal obeys some."""

from __future__ import annotations


def short_place(where: str) -> str:
    """Return a source line by its folder, file and number."""
    return "/".join(where.split("/")[-2:])


def printable(text: str) -> str:
    r"""Return a text in one line without what acts on a terminal: such characters as `\x1b`.

    Control and format characters (escape sequences, line ends, marks of direction) and halves of
    surrogate pairs are shown as Python writes them; str.isprintable() knows which. Blanks stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
