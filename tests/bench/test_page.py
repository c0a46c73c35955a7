"""How long a frame of the page's timeline takes while zooming; how large pages of many spans are.

sudo make bench BENCH_ARGS='-k page'
"""

from __future__ import annotations

import shutil
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tracer.correlate.words import LAG, STAGES
from tracer.report.page.render import render

if TYPE_CHECKING:
    from pathlib import Path

BAR_MS = 33
LANES = 200
# zooms in and out by turns, a step a frame, and notes how long each frame took
ZOOM = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  await frame();
  for (let i = 0; i < 90; i++) {
    const begin = performance.now();
    awaitscopeZoom(i % 30 < 15 ? 0.8 : 1.25);
    await frame();
    times.push(performance.now() - begin);
  }
  return times;
}"""


def document(spans: int) -> dict[str, Any]:
    """Return a page's data whose timeline has so many spans, random ones, and nothing else."""
    rng = np.random.default_rng(7)
    each, length = spans // LANES, 60_000_000_000
    lanes = []
    for number in range(LANES):
        edges = np.sort(rng.integers(0, length, each + 1))
        kinds = rng.integers(0, len(STAGES), each)
        flat = np.column_stack([edges[:-1], np.diff(edges), kinds, np.zeros(each, np.int64)])
        group = "loop" if number == 0 else "task"
        name = f"task {number}"
        lanes.append(
            {"group": group, "number": number, "name": name, "spans": flat.ravel(), "awaits": []}
        )
    timeline = {"lanes": lanes, "names": ["app.py:1"], "kinds": STAGES, "length_ns": length}
    zero = dict.fromkeys(STAGES, 0)
    totals = {"awaits": 0, "incomplete": 0, "tasks": 0, "total_ns": 0, "stages": zero}
    totals |= {"lag": {name.removesuffix("_ns"): 0 for name in LAG}, "waited_for": {}}
    return {
        "version": 1,
        "start_ns": 0,
        "command": ["app.py"],
        "duration_ns": length,
        "events": spans,
        "lost": 0,
        "state": "complete",
        "kernel": "6",
        "level": 3,
        "processes": 1,
        "totals": totals,
        "verdict": "",
        "findings": [],
        "lines": [],
        "holds": [],
        "held_over_ns": 50_000_000,
        "hold_count": 0,
        "culprits": [],
        "lag": [],
        "awaits": {},
        "first_await": None,
        "timeline": {**timeline, "omitted": []},
    }


@pytest.mark.bench
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_frames_while_zooming(tmp_path: Path) -> None:
    """Print the median frame and the page's size at three numbers of spans."""
    medians = {}
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for spans in (10_000, 50_000, 200_000):
            file = tmp_path / f"{spans}.html"
            file.write_text(render(document(spans)))
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(file.as_uri())
            times = page.evaluate(ZOOM)
            medians[spans] = statistics.median(times)
            size = file.stat().st_size / 1e6
            print(
                f"\n{spans:>7} spans: median frame {medians[spans]:.1f} ms (≤ {BAR_MS}),"
                f" slowest {max(times):.0f} ms, page {size:.1f} MB"
            )
            page.close()
        browser.close()
    assert all(median > 0 for median in medians.values())
