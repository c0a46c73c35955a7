"""The document as one HTML file: data, style and script are inside it.

What comes from the traced program is untrusted: Jinja escapes it in the markup, the data block
has no character that could end it, and the script sets texts, never markup.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from tracer import __version__
from tracer.correlate.words import STAGES
from tracer.report.colors import STAGE_COLORS
from tracer.report.flat import plain
from tracer.report.text import short_place

if TYPE_CHECKING:
    from collections.abc import Mapping

_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def render(document: Mapping[str, Any]) -> str:
    """Return the page."""
    folder = files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"ns": format_ns, "place": place, "visible": visible}
    template = environment.from_string((folder / "page.html").read_text("utf-8"))
    data = json.dumps(document, ensure_ascii=False, default=plain, separators=(",", ":"))
    return template.render(
        d=document,
        data=data.translate(_ESCAPES),
        style=(folder / "page.css").read_text("utf-8"),
        script="\n".join((folder / name).read_text("utf-8") for name in ("page.js", "timeline.js")),
        colors={stage: color.page for stage, color in STAGE_COLORS.items()},
        stages=STAGES,
        version=__version__,
    )


def format_ns(value: float | None) -> str:
    """Show a duration with three digits and its unit."""
    if value is None:
        return "–"
    for limit, unit, scale in ((1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if abs(value) < limit:
            return (
                f"{value / scale:,.3g} {unit}"
                if value / scale < 100
                else f"{value / scale:,.0f} {unit}"
            )
    return f"{value / 1e9:,.3g} s"


def place(where: str | None) -> str:
    """Show a source line by its last two parts."""
    return short_place(visible(where)) if where else "–"


def visible(text: object) -> str:
    """Return a text of the traced program without control characters."""
    return "".join(
        c if c.isprintable() else "\ufffd" for c in str(text if text is not None else "")
    )
