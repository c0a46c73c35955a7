"""The guests that the tests in this folder ask: each is booted once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
import loads
from images import kernel_of, root_of
from machine import Lab

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that tells the user something although output is captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def tell(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    return tell


@pytest.fixture(scope="session")
def bookworm(say: Callable[[str], None]) -> Lab:
    """Return Debian 12's kernel and root file system."""
    return Lab(kernel_of("bookworm", say), root_of("bookworm", say))


@pytest.fixture(scope="session")
def pair(
    bookworm: Lab, say: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> loads.Pair:
    """Return what `app` recorded of its traffic with `db`, each a guest with a card of its own."""
    return loads.run_pair(bookworm, tmp_path_factory.mktemp("pair"), say)
