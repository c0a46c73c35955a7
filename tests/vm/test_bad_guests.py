"""Guests that fail: each ends the test within a bound, with its console's last lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

# the names that conftest.py's folder makes importable
from machine import Guest, GuestFailed, GuestPanicked, Lab, run_guests

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


def failure(lab: Lab, job: str, folder: Path, said: list[str]) -> GuestFailed:
    """Run one guest that fails; return how."""
    guest = Guest("one", "10.0.2.15/24", job)
    with pytest.raises(GuestFailed) as caught:
        run_guests(lab, [guest], folder, said.append)
    return caught.value


def test_a_guest_without_a_root_file_system(bookworm: Lab, tmp_path: Path) -> None:
    """It does not boot: the console says where it stopped."""
    nothing = tmp_path / "nothing.img"
    nothing.write_bytes(bytes(1 << 20))
    lab = replace(bookworm, root=replace(bookworm.root, image=nothing))
    error = failure(lab, "true", tmp_path, [])
    assert "guest one left no result" in str(error)
    assert "one| LAB no root file system" in str(error)


def test_a_guest_that_is_too_slow(bookworm: Lab, tmp_path: Path) -> None:
    """Its job has not started in time."""
    error = failure(replace(bookworm, boot_s=1), "true", tmp_path, [])
    assert "guest one did not boot within 1 s:" in str(error)


def test_a_guest_that_hangs(bookworm: Lab, tmp_path: Path) -> None:
    """Its job does not end in time."""
    error = failure(replace(bookworm, boot_s=60, job_s=1), "sleep 600", tmp_path, [])
    assert "guest one hung" in str(error)
    assert "one| LAB job starts" in str(error)


def test_a_guest_whose_disk_is_full(bookworm: Lab, tmp_path: Path) -> None:
    """There is no room for the result, and the console says so."""
    fill = "dd if=/dev/zero of=/full bs=1M 2>/dev/null; dd if=/dev/zero of=/full2 bs=1k; exit 0"
    error = failure(bookworm, fill, tmp_path, [])
    assert "guest one left no result" in str(error)
    assert "No space left on device" in str(error)


def test_a_guest_that_panics(bookworm: Lab, tmp_path: Path) -> None:
    """A panic, and nothing else, is tried once more, and that is said."""
    said: list[str] = []
    error = failure(bookworm, "echo c >/proc/sysrq-trigger; sleep 60", tmp_path, said)
    assert isinstance(error, GuestPanicked)
    (line,) = said
    assert line.startswith("a guest's kernel panicked, once more:")
    assert "Kernel panic" in line
    assert "Kernel panic" in str(error)
