"""The one way out of every listing."""

from __future__ import annotations

import csv
import io
import json
import re

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.output import (
    ABSENT,
    Column,
    Output,
    emit,
    format_bytes,
    format_count,
    format_ns,
    format_share,
    output_options,
)

ROWS = [
    {"name": "a", "total_ns": 1_500, "stages": {"send_ns": 700}, "fds": [3, 4], "peer": None},
    {"name": "b", "total_ns": np.int64(2), "stages": {"send_ns": None}, "fds": [], "peer": "x"},
]
COLUMNS = (
    Column("name", "name"),
    Column("total_ns", "total", format_ns, right=True),
    Column("stages.send_ns", "send", format_ns, right=True),
    Column("fds", "fds"),
    Column("peer", "peer"),
)


@click.command
@output_options
@click.option("--empty", is_flag=True)
def listing(output: Output, *, empty: bool) -> None:
    """Print the rows."""
    emit([] if empty else ROWS, COLUMNS, output)


def run(*args: str, code: int = 0) -> str:
    """Run the listing and return its standard output."""
    result = CliRunner().invoke(listing, list(args))
    assert result.exit_code == code, result.output
    return result.stdout


def test_json_is_one_document_with_plain_values() -> None:
    """Nanoseconds stay numbers, nested keys stay nested, null is null."""
    document = json.loads(run("--json"))
    assert list(document) == ["version", "rows"]
    assert document["rows"][0] == ROWS[0]
    assert document["rows"][1]["total_ns"] == 2


def test_csv_has_all_keys_flat() -> None:
    """Nested keys are joined by a dot, lists by a semicolon."""
    rows = list(csv.DictReader(io.StringIO(run("--csv"))))
    assert rows[0] == {
        "name": "a",
        "total_ns": "1500",
        "stages.send_ns": "700",
        "fds": "3;4",
        "peer": "",
    }


NASTY = "\x1b[2J\n\u202e\x9b\udcffµ"


@pytest.mark.parametrize("args", [[], ["--fmt", "github"], ["--csv"], ["--json"]])
def test_names_cannot_command_a_terminal(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What acts on a terminal is shown as Python writes it; JSON keeps the name itself."""
    monkeypatch.setitem(ROWS[0], "name", NASTY)
    monkeypatch.setitem(ROWS[1], "name", "x" * 10_000)
    shown = run(*args)
    assert all(line.isprintable() for line in shown.split("\n"))
    if args == ["--json"]:
        assert json.loads(shown)["rows"][0]["name"] == NASTY
    else:
        assert r"\x1b[2J\n\u202e\x9b\udcffµ" in shown
        assert ("x" * 300 in shown) == (args == ["--csv"])


def test_a_table_is_for_people() -> None:
    """Values carry units, what is absent is a dash."""
    lines = run().splitlines()
    assert lines[0].split() == ["name", "total", "send", "fds", "peer"]
    assert lines[2].split() == ["a", "1.50", "µs", "0.7", "µs", "3,", "4", ABSENT]


@pytest.mark.parametrize("form", [[], ["--csv"], ["--fmt", "github"]])
def test_headers_can_be_left_out(form: list[str]) -> None:
    """--no-headers leaves data alone."""
    assert "name" in run(*form)
    assert "name" not in run(*form, "--no-headers")


@pytest.mark.parametrize("form", [[], ["--fmt", "github"], ["--csv"]])
def test_an_empty_listing_has_its_header(form: list[str]) -> None:
    """No rows is no error."""
    assert "name" in run("--empty", *form)
    assert json.loads(run("--empty", "--json"))["rows"] == []


def test_formats_exclude_each_other_and_are_checked() -> None:
    """Two formats or an unknown one are wrong usage."""
    run("--json", "--csv", code=2)
    run("--json", "--fmt", "github", code=2)
    run("--fmt", "nonsense", code=2)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, ABSENT),
        (0, "0.0 µs"),
        (400, "0.4 µs"),
        (1_520, "1.52 µs"),
        (83_100, "83.1 µs"),
        (999_400, "999 µs"),
        (999_600, "1.00 ms"),
        (1_520_000, "1.52 ms"),
        (12_300_000_000, "12.3 s"),
        (-83_100, "-83.1 µs"),
    ],
)
def test_durations_have_three_digits_and_a_unit(ns: int | None, text: str) -> None:
    """The unit is µs, ms or s."""
    assert format_ns(ns) == text


@given(st.integers(min_value=1_000, max_value=10**14))
def test_a_shown_duration_is_within_a_percent(ns: int) -> None:
    """What people read is the value, rounded."""
    match = re.fullmatch(r"([\d.]+) (µs|ms|s)", format_ns(ns))
    assert match
    shown = float(match[1]) * {"µs": 1e3, "ms": 1e6, "s": 1e9}[match[2]]
    assert abs(shown - ns) <= 0.01 * ns


def test_other_units() -> None:
    """Bytes are binary, counts have groups, shares are per cent."""
    assert format_bytes(17) == "17 B"
    assert format_bytes(65_536) == "64.0 KiB"
    assert format_count(1_234_567) == "1,234,567"
    assert format_share(0.123) == "12 %"
    assert format_bytes(None) == format_count(None) == format_share(None) == ABSENT
