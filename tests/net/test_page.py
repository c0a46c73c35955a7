"""The HTML page in a real browser: what it shows is what the trace says, and it asks nobody."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, sync_playwright
from tracing import STAGES, Traced, Tracings

from tracer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.bpf, pytest.mark.postgres]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Opened = tuple[Page, dict[str, Any]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a headless Chromium."""
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Opened]]:
    """Open a trace's page: (page, its data). Fails on a request to anywhere or a console error."""
    complaints: list[str] = []
    pages = []

    def open_page(trace: Traced, fragment: str = "", **options: Any) -> Opened:
        file = tmp_path_factory.mktemp("page") / "page.html"
        done = CliRunner().invoke(main, ["report", str(trace.folder), "-o", str(file)])
        assert done.exit_code == 0, done.output
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith("file://") or complaints.append(asked.url),
        )
        page.goto(file.as_uri() + fragment)
        return page, json.loads(page.locator("#data").text_content())

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def keep(page: Page, name: str) -> None:
    """Keep a picture for people, where AWAITSCOPE_SCREENSHOTS names a folder."""
    folder = os.environ.get("AWAITSCOPE_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_lines_are_those_of_the_trace(pool: Traced, opened: Callable[..., Opened]) -> None:
    """Each line's count, maximum and sum are those of its awaits; the shares are of the sum."""
    page, data = opened(pool)
    keep(page, "page")
    rows: dict[tuple[str, str], list[Any]] = {}
    for row in pool.awaits:
        if row["task_id"] is not None:
            rows.setdefault((row["where"], row["kind"]), []).append(row)
    assert {(line["where"], line["kind"]) for line in data["lines"]} == set(rows)
    for line in data["lines"]:
        mine = rows[line["where"], line["kind"]]
        totals = sorted(row["total_ns"] for row in mine)
        assert (line["count"], line["max"], line["sum"]) == (len(mine), totals[-1], sum(totals))
        assert line["p50"] == totals[(len(totals) - 1) // 2]
        assert sum(line["bins"].values()) == len(mine)
        known = {n: sum(row["stages"][f"{n}_ns"] or 0 for row in mine) for n in STAGES}
        for name in STAGES:
            assert abs(line["stages"][name] * (line["sum"] or 1) - known[name]) < 1
        examples = {row["await_id"]: row["total_ns"] for row in mine}
        assert examples[line["examples"]["slowest"]] == line["max"]
        assert examples[line["examples"]["median"]] == line["p50"]
    assert page.locator("#by-line tbody tr").count() == len(data["lines"])
    assert "%" in page.locator("h1.verdict").text_content()


def test_an_await_is_the_same_as_in_the_terminal(
    pool: Traced, opened: Callable[..., Opened]
) -> None:
    """The 13 steps of the default await, its stages and its swimlane."""
    page, data = opened(pool)
    document = pool.read("steps")
    one = data["awaits"][data["first_await"]]
    assert one["await"] == document["await"]
    assert one["steps"] == document["steps"]
    cells = page.locator("#steps tbody tr")
    assert cells.count() == 13
    for place, step in enumerate(document["steps"]):
        text = cells.nth(place).inner_text()
        assert step["what"] in text
        assert step["status"] in text
        assert not step["reason"] or f"({step['reason']})" in text
    known = [n for n in STAGES if document["await"]["stages"][f"{n}_ns"]]
    assert [t.split()[0] for t in page.locator("#one-stages span").all_inner_texts()] == known
    timed = [s for s in document["steps"] if s["start_ns"] is not None]
    assert page.locator("#swimlane rect[tabindex]").count() == len(timed)
    longest = max(data["awaits"], key=lambda one: len(data["awaits"][one]["order"]))
    page.evaluate(f"location.hash = '#await={longest}'")
    page.wait_for_function(
        f"document.getElementById('one-title').textContent.includes('{longest}')"
    )
    assert page.locator("#swimlane path").count() > 3
    proof = page.locator("#swimlane rect[tabindex] title").first.text_content()
    assert re.search(r"#\d+", proof)


def test_set_up_of_a_connection(
    traced: Tracings, certificate: list[str], opened: Callable[..., Opened]
) -> None:
    """An await that opened a connection shows each part; one that had it shows no such table."""
    trace = traced("setups.py", *certificate)
    page, data = opened(trace)
    shown = set()
    for number, one in data["awaits"].items():
        page.evaluate(f"location.hash = '#await={number}'")
        page.wait_for_function(
            f"document.getElementById('one-title').textContent.startsWith('await {number}:')"
        )
        parts = one["await"]["setup"]
        assert parts == trace.read("awaits")["rows"][int(number) - 1]["setup"]
        assert page.locator("#one-setup").is_visible() == bool(parts)
        texts = page.locator("#one-setup tbody tr").all_inner_texts()
        for part, text in zip(parts, texts, strict=True):
            assert [part["what"], part["outcome"]] == text.split("\t")[0::4][:2]
            assert all(f"{proof['event']}#{proof['id']}" in text for proof in part["evidence"])
            shown.add((part["what"], part["outcome"]))
        inside = [p for p in parts if one["start_ns"] <= p["start_ns"] <= one["end_ns"]]
        drawn = page.locator("#swimlane rect.setup title").all_text_contents()
        assert [text.partition(":")[0] for text in drawn] == [p["what"] for p in inside]
        if len(inside) > 1:
            keep(page, "setup")
    assert shown >= {("resolve", "result"), ("connect", "result"), ("handshake", "result")}


def test_deep_links_and_examples(pool: Traced, opened: Callable[..., Opened]) -> None:
    """`#await=ID` opens that await; a click on an example goes there; an unknown one says how."""
    _page, data = opened(pool)
    some = list(data["awaits"])[3]
    page, _data = opened(pool, f"#await={some}")
    assert page.locator("#one-title").text_content().startswith(f"await {some}: ")
    assert page.locator("#one").bounding_box()["y"] < 400
    link = page.locator("#by-line td.examples a", has_text="slowest").first
    link.click()
    wanted = link.get_attribute("href").partition("=")[2]
    assert page.locator("#one-title").text_content().startswith(f"await {wanted}: ")
    page.evaluate("location.hash = '#await=999999'")
    page.wait_for_function("document.getElementById('one-body').hidden")
    assert "awaitscope steps --await 999999" in page.locator("#one-none").text_content()


def test_sort_filter_and_distribution(pool: Traced, opened: Callable[..., Opened]) -> None:
    """Columns sort both ways, also by keyboard; the filter finds lines, kinds and tasks."""
    page, data = opened(pool)

    def column(number: int) -> list[str]:
        return page.locator(f"#by-line tbody tr td:nth-child({number})").all_inner_texts()

    head = page.locator("#by-line th[data-key=count]")
    head.click()
    counts = [int(text.replace(",", "")) for text in column(3)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 1
    head.press("Enter")
    assert [int(text.replace(",", "")) for text in column(3)] == sorted(counts)
    assert head.get_attribute("aria-sort") == "ascending"
    kind = data["lines"][0]["kind"]
    page.locator("#filter").fill(kind)
    rows = page.locator("#by-line tbody tr:visible")
    expected = [
        line
        for line in data["lines"]
        if kind in "\n".join([line["where"], line["kind"], *line["tasks"]]).lower()
    ]
    assert rows.count() == len(expected)
    assert page.locator("#shown").text_content() == f"{len(expected)} of {len(data['lines'])}"
    page.locator("#filter").fill("no such line")
    assert rows.count() == 0
    page.locator("#filter").fill("")
    rows.first.press("Enter")
    place = int(rows.first.get_attribute("data-row"))
    assert page.locator("#distribution rect").count() == len(data["lines"][place]["bins"])


def test_the_timeline(pool: Traced, opened: Callable[..., Opened]) -> None:
    """Its spans are the trace's; keys and wheel zoom and move; a click on an await opens it."""
    page, data = opened(pool)
    timeline, start = data["timeline"], data["start_ns"]
    lanes = {lane["number"]: lane for lane in timeline["lanes"] if lane["group"] == "task"}
    stage = {n: timeline["kinds"].index(n) for n in STAGES}
    for task in pool.tasks:
        lane = lanes.get(task["task_id"])
        mine = [row for row in pool.awaits if row["task_id"] == task["task_id"]]
        if lane is None:
            assert data["timeline"]["omitted"] or not any(row["total_ns"] for row in mine)
            continue
        spans = list(zip(*[iter(lane["spans"])] * 4, strict=True))
        assert sum(s[1] for s in spans) == sum(
            row["stages"][f"{n}_ns"] or 0 for row in mine for n in STAGES
        )
        assert {s[2] for s in spans} <= set(stage.values())
        assert min(s[0] for s in spans) >= min(row["start_ns"] for row in mine) - start
    assert any(lane["group"] == "CPU" for lane in timeline["lanes"])
    assert any(lane["group"] == "thread" for lane in timeline["lanes"]), "the server's processes"
    view = "[awaitscopeView.from, awaitscopeView.to]"
    canvas = page.locator("#lanes")
    canvas.scroll_into_view_if_needed()
    before = page.evaluate(view)
    assert before == [0, timeline["length_ns"]]
    canvas.press("w")
    zoomed = page.evaluate(view)
    assert zoomed[1] - zoomed[0] < 0.8 * before[1]
    canvas.press("d")
    assert page.evaluate(view)[0] > zoomed[0]
    canvas.press("a")
    canvas.press("s")
    canvas.press("0")
    assert page.evaluate(view) == before
    box = canvas.bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 60, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    brushed = page.evaluate(view)
    share = (brushed[1] - brushed[0]) / before[1]
    assert abs(share - 200 / (box["width"] - 170)) < 0.02
    keep(page, "timeline")
    canvas.press("0")
    page.locator("#find").fill("no such name")
    page.locator("#find").fill("")
    assert ink(page) > 100


def ink(page: Page) -> int:
    """Count the pixels of the timeline that are neither background nor transparent."""
    page.wait_for_timeout(100)
    count = page.evaluate(
        """() => { const c = document.getElementById('lanes');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) if (d[i + 3] && Math.max(d[i], d[i+1], d[i+2])
          - Math.min(d[i], d[i+1], d[i+2]) > 40) n++; return n; }"""
    )
    return int(count)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_dark_and_a_phone(pool: Traced, opened: Callable[..., Opened], scheme: str) -> None:
    """The scheme follows the system and the button; nothing is wider than a phone."""
    size = {"width": 390, "height": 844}
    page, _data = opened(pool, viewport=size, color_scheme=scheme)
    keep(page, f"phone-{scheme}")
    background = "getComputedStyle(document.body).backgroundColor"
    shade = [int(n) for n in re.findall(r"\d+", page.evaluate(background))][:3]
    assert (sum(shade) > 600) == (scheme == "light")
    page.locator("#theme").click()
    other = [int(n) for n in re.findall(r"\d+", page.evaluate(background))][:3]
    assert (sum(other) > 600) != (scheme == "light")
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_names(traced: Tracings, opened: Callable[..., Opened]) -> None:
    """Names of the program are shown as text; none becomes markup or script."""
    trace = traced("hostile.py")
    page, data = opened(trace)
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert sorted(task["task_name"] for task in trace.tasks if "Task-" not in task["task_name"])
    told = {name for line in data["lines"] for name in line["tasks"]}
    assert told & set(trace.truth["names"]), "they are in the data as they are"
    ids = [one for one in data["awaits"] if data["awaits"][one]["await"]["kind"] == "timer"]
    page.evaluate(f"location.hash = '#await={ids[0]}'")
    page.wait_for_timeout(100)
    assert "\x1b" not in page.locator("body").inner_text()
    assert "\u202e" not in page.locator("body").inner_text()
    assert "owned" not in page.title()


def test_without_script_the_tables_are_there(
    pool: Traced, browser: Browser, tmp_path: Path
) -> None:
    """Lines, findings and one await's steps need no script."""
    CliRunner().invoke(main, ["report", str(pool.folder), "-o", str(tmp_path / "p.html")])
    page = browser.new_page(java_script_enabled=False)
    page.goto((tmp_path / "p.html").as_uri())
    assert page.locator("#by-line tbody tr").count() > 3
    assert page.locator("noscript tbody tr").count() == 13
    assert "observed" in page.locator("#one").inner_text()
    page.close()


def test_small_traces(traced: Tracings, opened: Callable[..., Opened], tmp_path: Path) -> None:
    """A program without tasks, and one with a single await, have a page, too."""
    plain = tmp_path / "plain.py"
    plain.write_text("import json; print(json.dumps({}))")
    page, data = opened(traced(plain))
    assert page.locator("h1.verdict").text_content() == "No await took any time in this trace."
    assert data["awaits"] == {}
    page, data = opened(traced("shapes.py", "timer"))
    assert data["totals"]["tasks"] >= 1
    assert page.locator("#by-line tbody tr").count() == len(data["lines"]) > 0


def test_existing_files_stay(pool: Traced, tmp_path: Path) -> None:
    """A file that is there is kept, but for --force."""
    there = tmp_path / "page.html"
    there.write_text("mine")
    done = CliRunner().invoke(main, ["report", str(pool.folder), "-o", str(there)])
    assert (done.exit_code, there.read_text()) == (2, "mine")
    done = CliRunner().invoke(main, ["report", str(pool.folder), "-o", str(there), "--force"])
    assert done.exit_code == 0
    assert there.read_text().startswith("<!doctype html>")
