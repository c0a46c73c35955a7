"""The colours of the loop's lag: each cause has one, and none is another's."""

from __future__ import annotations

import re
from importlib.resources import files

from tracer.correlate.words import LAG
from tracer.report.colors import STAGE_COLORS


def test_causes_of_lag_differ() -> None:
    """Two causes of one colour could not be told apart, whatever names the colour has."""
    page = files("tracer.report.page")
    script, style = ((page / name).read_text("utf-8") for name in ("page.js", "page.css"))
    (causes,) = re.findall(r"const CAUSES = \{(.*?)\}", script)
    names = dict(re.findall(r'(\w+): "(\w+)"', causes))
    assert set(names) == set(LAG)
    light = style.partition("}")[0]
    colors = {stage: color.page for stage, color in STAGE_COLORS.items()}
    colors |= dict(re.findall(r"--([\w-]+): (#\w+)", light))
    assert len({colors[name] for name in names.values()}) == len(LAG)
