"""Where the built agents of a user are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tracer.capture.session import _agent_cache
from tracer.capture.target import User

if TYPE_CHECKING:
    from pathlib import Path


def user(home: Path, uid: int) -> User:
    """Return a user with this home."""
    return User(uid=uid, gid=uid, name="u", home=str(home), shell="/bin/sh", dropped=True)


def test_a_home_of_ones_own_keeps_the_agents(tmp_path: Path) -> None:
    """A user with a home has the agents built once, in their cache."""
    mine = user(tmp_path, os.getuid())
    assert _agent_cache(mine, {}) == tmp_path / ".cache" / "awaitscope"
    asked = tmp_path / "elsewhere"
    asked.mkdir()
    assert _agent_cache(mine, {"XDG_CACHE_HOME": str(asked)}) == asked / "awaitscope"


def test_nothing_is_written_to_a_missing_or_foreign_home(tmp_path: Path) -> None:
    """A user without a home, or with somebody else's, has none."""
    assert _agent_cache(user(tmp_path / "none", os.getuid()), {}) is None
    assert _agent_cache(user(tmp_path, os.getuid() + 1), {}) is None
