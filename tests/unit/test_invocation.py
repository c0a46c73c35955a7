"""Hints name awaitscope so that they can be typed as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.capture.target import find_command
from tracer.errors import CommandNotFound
from tracer.system.invocation import called_as, sudo_line


def program(folder: Path, name: str = "awaitscope") -> Path:
    """Return a new file that can be executed."""
    path = folder / name
    path.touch(mode=0o755)
    return path


@pytest.mark.parametrize(
    ("typed", "on_path", "named"),
    [
        (".venv/bin/awaitscope", False, ".venv/bin/awaitscope"),
        ("/opt/my tools/awaitscope", False, "'/opt/my tools/awaitscope'"),
        ("/usr/local/bin/awaitscope", True, "awaitscope"),
        ("/usr/bin/pytest", False, "awaitscope"),
    ],
)
def test_the_next_command_can_be_typed(
    typed: str, *, on_path: bool, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name where PATH has it, else as it was typed; sudo gets a path in any case."""
    if on_path:
        program(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [typed, "run", "--", "app", "two words"])
    assert called_as() == named
    absolute = sudo_line("doctor").removeprefix("sudo ").removesuffix(" doctor").strip("'")
    assert absolute == str(Path(typed).absolute())
    assert sudo_line().endswith(" run -- app 'two words'")


def test_where_python_is_called_python3_the_fix_says_so(tmp_path: Path) -> None:
    """Debian has no command `python`; without a python3 nothing is promised."""
    env = {"PATH": str(tmp_path)}
    with pytest.raises(CommandNotFound) as lacking:
        find_command("python", env)
    assert "python3" not in (lacking.value.fix or "")
    program(tmp_path, "python3")
    with pytest.raises(CommandNotFound) as other_name:
        find_command("python", env)
    assert "python3" in (other_name.value.fix or "")
