"""Measure what tracing costs: `make bench` prints the table. How fast is for people to judge."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import compare


@pytest.mark.bench
@pytest.mark.bpf
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_throughput(bpf_left_clean: None) -> None:
    """Every variant runs to its end, and a trace of a busy program loses nothing."""
    document = compare.measure(compare.Sizes())
    print("\n" + compare.table(document))
    assert all(ratio > 0 for row in document["rows"] for ratio in row["ratios"])
    assert not any(row.get("lost") for row in document["rows"])
    assert all(row["events_per_operation"] > 1 for row in document["rows"] if "armed_s" in row)
