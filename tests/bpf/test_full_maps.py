"""What has no room in a map of the kernel side is counted as lost, never silently missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tracing import Tracings

pytestmark = pytest.mark.bpf
ROOM = 1 << 16  # of `socks` in probes/include/filter.h


def test_more_sockets_than_the_map_holds(traced: Tracings) -> None:
    """Of all sockets that are open at once each has its record or is counted as lost."""
    trace = traced(Path(__file__).parent / "many_sockets.py", level=1)
    socket = trace.info["events"]["socket"]
    assert socket["written"] + socket["lost"] >= trace.truth["sockets"] > ROOM
    assert socket["lost"] >= trace.truth["sockets"] - ROOM
