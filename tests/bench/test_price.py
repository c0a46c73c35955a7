"""Measure what awaitscope costs: `make bench` prints the table. How fast is for people to judge."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import compare
import price


@pytest.mark.bench
@pytest.mark.bpf
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_price(bpf_left_clean: None) -> None:
    """Everything runs to its end, and no trace of a busy program loses anything."""
    prices, comparison = price.measure(compare.Sizes(), [])
    print(f"\n{comparison}\n\n{price.table(prices)}")
    assert all(p.measured > 0 for p in prices if "lost" not in p.what)
    assert [p.measured for p in prices if "lost" in p.what] == [0, 0]
