"""The colours of the stages, the same in the page and in the terminal."""

from __future__ import annotations

from typing import NamedTuple


class StageColor(NamedTuple):
    """A colour on a page that may be light or dark, and the nearest name that terminals have."""

    page: str
    terminal: str


# cold and grey where others worked; `wake`, `queue` and `resume` are lag: warm
STAGE_COLORS = {
    "prepare": StageColor("#7c8ba1", "bright_black"),
    "send": StageColor("#3b82c4", "blue"),
    "remote": StageColor("#a8b3c2", "white"),
    "receive": StageColor("#2aa198", "cyan"),
    "wake": StageColor("#e0a83c", "bright_yellow"),
    "queue": StageColor("#e2783a", "yellow"),
    "read": StageColor("#4a9e5c", "green"),
    "resume": StageColor("#d1495b", "red"),
}
