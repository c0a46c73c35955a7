"""The recorded trace, and files that say what is made of it."""

from __future__ import annotations

import difflib
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tracer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).resolve().parents[1] / "data"
MOST_DIFFERENCES = 40


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the recorded trace in a folder of its own: the first command correlates it there."""
    folder = tmp_path_factory.mktemp("recorded") / "golden.trace"
    shutil.copytree(DATA / "trace", folder)
    return folder


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set it."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def said(recorded: Path) -> Callable[..., str]:
    """Give what a command says of the recorded trace on standard output."""

    def say(command: str, *args: str) -> str:
        done = CliRunner().invoke(main, [command, str(recorded), *args])
        assert done.exit_code == 0, done.output
        return done.stdout.replace(str(recorded), "golden.trace")

    return say


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file in tests/data/golden; --update-golden writes the file."""

    def compare(name: str, text: str) -> None:
        path = DATA / "golden" / name
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), name, "now", "", "", 1, lineterm=""
            )
            told = "\n".join(line[:200] for line in islice(lines, MOST_DIFFERENCES))
            pytest.fail(f"{told}\nwanted? pytest tests/golden --update-golden", pytrace=False)

    return compare
