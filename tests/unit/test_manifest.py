"""The trace folder's manifest: which folders are traces that this version reads."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tracer.cli.main import main
from tracer.errors import TraceUnreadable
from tracer.store.layout import FORMAT, TraceFolder, newest_trace

if TYPE_CHECKING:
    from pathlib import Path


def trace(path: Path, text: str) -> TraceFolder:
    """Make a folder with this manifest."""
    path.mkdir()
    (path / "manifest.json").write_text(text)
    return TraceFolder(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps({"format": FORMAT + 1, "state": "complete"}), "newer"),
        ("", "no awaitscope trace"),
        ("\0\xff", "no awaitscope trace"),
        ("[1]", "no format number"),
        ('{"format": "1"}', "no format number"),
        ('{"name": "a web app"}', "no format number"),
        (json.dumps({"format": FORMAT}), "no state"),
        (json.dumps({"format": FORMAT, "state": "complete", "correlated": True}), "cannot be read"),
    ],
    ids=["newer", "empty", "binary", "list", "text", "foreign", "no-state", "no-tables"],
)
def test_what_cannot_be_read_is_exit_code_6(tmp_path: Path, text: str, complaint: str) -> None:
    """A newer trace, somebody else's manifest or a damaged one is a sentence, not a traceback."""
    folder = trace(tmp_path / "t", text)
    done = CliRunner().invoke(main, ["info", str(folder.path)])
    assert done.exit_code == 6, done.output
    assert complaint in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_a_path_that_is_no_trace_is_exit_code_6(tmp_path: Path, kind: str) -> None:
    """Any other folder or file is refused, and left as it is."""
    path = tmp_path / "t"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, ["info", str(path)])
    assert done.exit_code == 6, done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_is_replaced_in_one_step(tmp_path: Path) -> None:
    """It has the format's number, is its owner's alone, and no part of it stays behind."""
    folder = TraceFolder(tmp_path / "t", (os.getuid(), os.getgid()))
    folder.create()
    for state in ("recording", "recorded"):
        folder.write_manifest({"state": state})
        assert folder.read_manifest() == {"format": FORMAT, "state": state}
    assert sorted(p.name for p in folder.path.iterdir()) == ["live", "manifest.json", "raw"]
    assert (folder.path / "manifest.json").stat().st_mode & 0o777 == 0o600
    assert folder.raw.stat().st_mode & 0o777 == 0o700


def test_a_manifests_name_is_not_followed_elsewhere(tmp_path: Path) -> None:
    """A link put where the new manifest is written does not lead awaitscope to another file."""
    folder = trace(tmp_path / "t", "{}")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder.path / "manifest.json.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        folder.write_manifest({})
    assert victim.read_text() == "mine"


def test_the_newest_trace_is_the_one_changed_last(tmp_path: Path) -> None:
    """Names do not count, nor do folders that are no traces."""
    for name, when in (("a", 30), ("b", 50), ("c", 10)):
        folder = trace(tmp_path / name, json.dumps({"format": FORMAT}))
        os.utime(folder.path / "manifest.json", (when, when))
    (tmp_path / "z").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    assert newest_trace(tmp_path) == tmp_path / "b"


def test_no_trace_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a trace in the current folder the next command to type is named."""
    with pytest.raises(TraceUnreadable, match="no trace"):
        newest_trace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["/opt/bin/awaitscope", "info"])
    done = CliRunner().invoke(main, ["info"])
    assert done.exit_code == 6
    assert "sudo /opt/bin/awaitscope run" in done.output
