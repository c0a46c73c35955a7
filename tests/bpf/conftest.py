"""Fixtures of the tests that load BPF programs."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tracing import traced

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["traced"]


def _module(name: str) -> Any:
    """Import a helper of this folder, which is no package, under a name of its own."""
    full = f"bpf_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec
        assert spec.loader
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


_module("scope")


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[Any]:
    """Return the awaitscope command in a folder of the test's own."""
    made = _module("scope").Scope(tmp_path)
    yield made
    made.close()


@pytest.fixture
def public() -> Iterator[Any]:
    """Return the command in a folder that every user reaches and may write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        made = _module("scope").Scope(Path(name))
        yield made
        made.close()
