"""The command's shell: help, errors, colours, the lazy table."""

from __future__ import annotations

import errno
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

from tracer import __version__, errors
from tracer.cli import main as shell
from tracer.cli.main import COMMANDS, main


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    """Help is quick because it loads no command and none of these packages."""
    code = (
        "import sys\nfrom tracer.cli.main import main\n"
        f"main({args!r}, standalone_mode=False)\nprint('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.rsplit("MODULES", 1)[1].split())
    assert not loaded & {"numpy", "duckdb", "bcc", "pyroute2", "tabulate", "asyncio"}
    assert not {name for name in loaded if name.startswith("tracer.capture")}


def test_help_has_every_command_and_the_exit_codes() -> None:
    """The table in the help is the table of commands; -h is --help."""
    result = CliRunner().invoke(main, ["-h"])
    assert result.exit_code == 0
    for name, line in COMMANDS.items():
        assert name in result.stdout
        assert line in result.stdout
    assert "Exit codes: 0 good" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_exists(name: str) -> None:
    """A command that is listed can be imported and has a help of its own."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: main {name}")


def test_version_is_the_packages() -> None:
    """--version prints one line."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.stdout == f"awaitscope, version {__version__}\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    """Exit code 2, and nothing on standard output."""
    result = CliRunner().invoke(main, ["nonsense"])
    assert (result.exit_code, result.stdout) == (2, "")


def offer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Put a command `boom` into the table that raises this error."""

    @click.command
    def boom() -> None:
        raise error

    module = types.ModuleType("tracer.cli.boom")
    module.boom = boom  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tracer.cli.boom", module)
    monkeypatch.setitem(shell.COMMANDS, "boom", "Raise.")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.Usage, 2),
        (errors.Prerequisite, 4),
        (errors.TargetGone, 5),
        (errors.TraceUnreadable, 6),
        (errors.TracerFailed, 125),
        (errors.CannotExecute, 126),
        (errors.CommandNotFound, 127),
    ],
)
def test_an_error_is_a_sentence_a_fix_and_the_contracts_code(
    kind: type[errors.AwaitscopeError], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors go to standard error as two lines, never as a traceback."""
    offer(monkeypatch, kind("it broke", "mend it"))
    result = CliRunner().invoke(main, ["boom"])
    assert result.exit_code == code
    assert result.stderr == "awaitscope: it broke\n  fix: mend it\n"
    assert result.stdout == ""


def test_an_error_without_a_fix_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no empty fix."""
    offer(monkeypatch, errors.TraceUnreadable("it broke"))
    assert CliRunner().invoke(main, ["boom"]).stderr == "awaitscope: it broke\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "awaitscope: No space left on device\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            "awaitscope: x: Permission denied\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
    ],
    ids=["full", "denied", "reader gone"],
)
def test_output_that_cannot_be_written(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's refusal is a line; a reader that has read enough is nothing to tell."""
    offer(monkeypatch, error)
    result = CliRunner().invoke(main, ["boom"])
    assert (result.exit_code, result.stderr) == (1, said)


@pytest.mark.parametrize(
    ("args", "env", "colored"),
    [
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        ([], {}, False),
    ],
)
def test_colours_obey_the_option_then_the_environment(
    args: list[str], env: dict[str, str], *, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--color wins, then NO_COLOR, then FORCE_COLOR; a pipe gets none."""
    offer(monkeypatch, errors.Usage("it broke"))
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    stderr = CliRunner(env=env).invoke(main, [*args, "boom"]).stderr
    assert ("\x1b[" in stderr) is colored
