"""Run others' test suites with and without awaitscope and compare what came of each test.

    sudo make test-guest           # all suites: 3 to 10 minutes each on two cores
    sudo .venv/bin/python tests/guest.py --suite cpython --python python3.15
    sudo .venv/bin/python tests/guest.py --suite asyncpg --light

What differs is run once more without: a test that differs from itself is called flaky. (asyncpg's
test_ssl_fallback_timeout_and_cancellation is, on a busy machine: it gives two connections and a TLS
handshake 0.2 s together.) A run that is not done after 15 minutes is broken off. The suites run
as nobody (PostgreSQL refuses root), in a folder of their own that is gone afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from tabulate import tabulate

from tests.unpacked import make_environment, unpacked
from tracer.capture.target import User, environment_of

COMMAND = Path(sys.executable).with_name("awaitscope")
NOBODY = User(65534, 65534, "nobody", "/nonexistent", "/usr/sbin/nologin", dropped=True)
AS_NOBODY = {"SUDO_UID": "65534", "SUDO_GID": "65534", "SUDO_USER": "nobody"}
# a test that hangs fails alone, and is named
PYTEST = ("-m", "pytest", "-q", *("-p", "no:cacheprovider"), *("-o", "addopts="), "--timeout=60")
RUN_S = 900
TELL_S = 15
# each test ends with a collection of all objects, most of them pytest's: nine tenths of the time
PASS_OVER = """
import gc

def pytest_runtest_setup():
    gc.freeze()
"""
Outcomes = dict[str, list[str]]


@dataclass(frozen=True)
class Suite:
    """How a suite is had and run.

    `source` is the package whose source distribution has it in `tests` (none: the interpreter has
    it), `packages` what it imports, `arguments` run it; the report's path is put behind `report`.
    `without` are the arguments that leave something out, and why; `conftest` is put above its own.
    """

    arguments: tuple[str, ...]
    report: str
    source: str = ""
    packages: tuple[str, ...] = ()
    without: dict[str, str] = field(default_factory=dict)
    conftest: str = ""


SUITES = {
    "cpython": Suite(("-m", "test", "test_asyncio"), "--junit-xml="),
    "asyncpg": Suite(
        (*PYTEST, "tests"),
        "--junitxml=",
        "asyncpg",
        ("pytest", "pytest-timeout", "distro", "uvloop"),
        {"--ignore=tests/test__sourcecode.py": "what style checkers say of its source"},
    ),
    "aiohttp": Suite(
        (*PYTEST, "tests"),
        "--junitxml=",
        "aiohttp",
        (
            *("pytest>=8.4", "pytest-mock", "pytest-timeout", "pytest-cov", "pytest-codspeed"),
            *("blockbuster", "Brotli", "freezegun", "gunicorn", "isal", "proxy.py>=2.4.4rc5"),
            *("python-on-whales", "re-assert", "trustme", "zlib-ng", "uvloop"),
        ),
        {
            "--ignore-glob=*benchmarks*": "they measure",
            "-mnot dev_mode and not autobahn and not internal": "what it leaves out itself: tests"
            " of another mode, with a peer in a Docker container, and more that measure",
        },
        PASS_OVER,
    ),
}


def outcomes(report: Path) -> Outcomes:
    """Return what came of each test: passed, skipped, failure or error, once for each subtest."""
    found: Outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        tags = [part.tag for part in case if part.tag in {"failure", "error", "skipped"}]
        found.setdefault(name, []).append(tags[0] if tags else "passed")
    return found


def different(one: Outcomes, other: Outcomes) -> set[str]:
    """Return the tests of which the same did not come."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


class Runner:
    """Runs one suite on one interpreter."""

    def __init__(self, name: str, python: str, folder: Path, *, light: bool) -> None:
        """Name them; `folder` is nobody's. In light mode no compiler and no agent is there."""
        self._name, self._python, self._folder, self._light = name, python, folder, light
        self._suite = SUITES[name]
        postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self._env = {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PGINSTALLATION": str(postgres[-1]) if postgres else "",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        (folder / "cache" / "awaitscope").mkdir(parents=True)
        # an agent that others may write is refused: then the one in Python runs
        (folder / "cache" / "awaitscope").chmod(0o777 if light else 0o700)

    def get(self) -> None:
        """Fetch the suite and what it imports; CalledProcessError or BuildFailed if that fails."""
        source = self._suite.source
        if not source:
            return
        self._python = str(make_environment(self._python, self._folder / "venv"))
        pip = [self._python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", source, *self._suite.packages], check=True)
        say = f"import importlib.metadata as m; print(m.version({source!r}))"
        version = subprocess.check_output([self._python, "-c", say], text=True).strip()
        name = f"{source}=={version}"
        get = [*pip, "download", "--no-deps", "--no-binary", source, "-d", self._folder, name]
        subprocess.run(get, check=True)
        shutil.unpack_archive(next(self._folder.glob("*.tar.gz")), self._folder / "source")
        (inside,) = (self._folder / "source").iterdir()
        for part in ("tests", "pytest.ini", "README.rst"):
            if (inside / part).exists():
                (inside / part).rename(self._folder / part)
        shutil.rmtree(self._folder / "source")
        (self._folder / "conftest.py").write_text(self._suite.conftest)

    def run(self, label: str, *more: str, traced: bool) -> Outcomes:
        """Run the suite; RuntimeError with its last lines if it wrote no report."""
        report, log, trace = (self._folder / f"{label}.{end}" for end in ("xml", "log", "trace"))
        suite = [self._python, *self._suite.arguments, *self._suite.without, *more]
        suite.append(f"{self._suite.report}{report}")
        if traced:
            command = [str(COMMAND), "run", "-o", str(trace), "--", *suite]
            env = {**os.environ, **AS_NOBODY}
        else:
            drop = ["setpriv", f"--reuid={NOBODY.uid}", f"--regid={NOBODY.gid}", "--clear-groups"]
            command, env = [*drop, *suite], environment_of(NOBODY)
        with log.open("wb") as out:
            # a shell's background job ignores SIGINT, for which some tests wait
            running = subprocess.Popen(
                ["env", "--default-signal=INT", *command],
                cwd=self._folder,
                env=env | self._env,
                stdout=out,
                stderr=out,
            )
            self._wait(running, label, log)
        if not report.exists():
            raise RuntimeError("\n".join(_lines(log)[-16:]))
        if traced:
            self.agents(trace)
        return outcomes(report)

    def _wait(self, running: subprocess.Popen[bytes], label: str, log: Path) -> None:
        """Wait for a run and tell how far it is; RuntimeError if it takes too long."""
        begin, spent = time.monotonic(), 0.0
        try:
            while spent < RUN_S:
                with suppress(subprocess.TimeoutExpired):
                    running.wait(TELL_S)
                    return
                spent = time.monotonic() - begin
                whole = ["", *_lines(log)[:-1]]
                tell = f"guest: {self._name}, {label}: {spent:.0f} s: {whole[-1][-60:]}"
                print(tell, file=sys.stderr)
        finally:
            running.terminate()
            running.wait()
        raise RuntimeError(f"{self._name}, {label}: not done after {RUN_S} s")

    def agents(self, trace: Path) -> None:
        """Make sure that the agent was there; RuntimeError if not."""
        done = subprocess.check_output([COMMAND, "info", trace, "--json"], text=True)
        seen = {target.get("agent"): target for target in json.loads(done)["targets"]}
        if ("light" if self._light else "c") not in seen:
            raise RuntimeError(f"the agent was in no process, nothing is shown by this: {seen}")


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").split("\n")


def compare(
    name: str, python: str, *more: str, light: bool = False
) -> tuple[Outcomes, set[str], set[str]]:
    """Return what came of a suite without awaitscope, what differs with it, and what is flaky."""
    with tempfile.TemporaryDirectory(prefix="awaitscope-guest-") as text:
        folder = Path(text)
        runner = Runner(name, python, folder, light=light)
        runner.get()
        subprocess.run(["chown", "-R", f"{NOBODY.uid}:{NOBODY.gid}", folder], check=True)
        plain = runner.run("without", *more, traced=False)
        differs = different(plain, runner.run("with", *more, traced=True))
        flaky = differs & different(
            plain, runner.run("again", *more, traced=False) if differs else {}
        )
    return plain, differs - flaky, flaky


def interpreter(name: str) -> str:
    """Return the path of an interpreter; BuildFailed if it is neither here nor Debian's."""
    return shutil.which(name) or str(unpacked(name, f"lib{name}-testsuite"))


def main() -> int:
    """Print the table; 1 if a test differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="default: all")
    parser.add_argument(
        "--python",
        action="append",
        help="a path, or a name such as python3.15, then unpacked from Debian's archive if it is"
        " not on PATH; may be repeated; default: /usr/bin/python3",
    )
    parser.add_argument("--light", action="store_true", help="with the agent in Python")
    options = parser.parse_args()
    rows, bad = [], False
    for python in options.python or ["/usr/bin/python3"]:
        for name in options.suite or SUITES:
            for what, why in SUITES[name].without.items():
                print(f"guest: {name}: {what} ({why})", file=sys.stderr)
            plain, differs, flaky = compare(name, interpreter(python), light=options.light)
            bad |= bool(differs) or not plain
            passed = sum(kinds == ["passed"] for kinds in plain.values())
            rows.append([python, name, len(plain), passed, len(differs), len(flaky)])
            for what, tests in (("differs", differs), ("flaky", flaky)):
                for test in sorted(tests):
                    print(f"{what}: {name}: {test}")
    print(tabulate(rows, ["python", "suite", "tests", "passed", "differ", "flaky"]))
    return bad


if __name__ == "__main__":
    sys.exit(main())
