"""Run others' test suites with and without awaitscope and compare what came of each test.

    sudo make test-guest           # all suites
    sudo .venv/bin/python tests/guest.py --suite cpython --python ~/python3.13

What differs is run once more without: a test that differs from itself is called flaky. The suites
run as nobody (PostgreSQL refuses root), in a folder of their own that is gone afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tabulate import tabulate

COMMAND = Path(sys.executable).with_name("awaitscope")
NOBODY = 65534
AS_NOBODY = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody"}
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
Outcomes = dict[str, list[str]]


@dataclass(frozen=True)
class Suite:
    """How a suite is had and run.

    `source` is the package whose source distribution has it in `tests` (none: the interpreter has
    it), `packages` what it imports, `arguments` run it; the report's path is put behind `report`.
    """

    arguments: tuple[str, ...]
    report: str
    source: str = ""
    packages: tuple[str, ...] = ()


SUITES = {
    "cpython": Suite(("-m", "test", "test_asyncio"), "--junit-xml="),
    "asyncpg": Suite(
        # what style checkers say of its source is no matter of ours
        (*PYTEST, "tests", "--ignore=tests/test__sourcecode.py"),
        "--junitxml=",
        "asyncpg",
        ("pytest", "distro", "uvloop"),
    ),
    "aiohttp": Suite(
        (*PYTEST, "tests", "--ignore-glob=*benchmarks*"),
        "--junitxml=",
        "aiohttp",
        (
            *("pytest>=8.4", "pytest-mock", "pytest-timeout", "pytest-cov", "pytest-codspeed"),
            *("blockbuster", "freezegun", "gunicorn", "isal", "proxy.py>=2.4.4rc5"),
            *("python-on-whales", "re-assert", "trustme", "zlib-ng", "uvloop"),
        ),
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

    def __init__(self, suite: Suite, python: str, folder: Path) -> None:
        """Name them; `folder` is nobody's."""
        self._suite, self._python, self._folder = suite, python, folder
        postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")} | {
            "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PGINSTALLATION": str(postgres[-1]) if postgres else "",
        }

    def get(self) -> None:
        """Fetch the suite and what it imports; CalledProcessError if that fails."""
        source = self._suite.source
        if not source:
            return
        venv = self._folder / "venv"
        subprocess.run([self._python, "-m", "venv", venv], check=True)
        self._python = str(venv / "bin" / "python")
        pip = [self._python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", source, *self._suite.packages], check=True)
        say = f"import importlib.metadata as m; print(m.version({source!r}))"
        version = subprocess.check_output([self._python, "-c", say], text=True).strip()
        name = f"{source}=={version}"
        get = [*pip, "download", "--no-deps", "--no-binary", source, "-d", self._folder, name]
        subprocess.run(get, check=True)
        shutil.unpack_archive(next(self._folder.glob("*.tar.gz")), self._folder / "source")
        (inside,) = (self._folder / "source").iterdir()
        for part in ("tests", "pytest.ini"):
            if (inside / part).exists():
                (inside / part).rename(self._folder / part)
        shutil.rmtree(self._folder / "source")
        for path in [self._folder, *self._folder.rglob("tests/**/*")]:
            os.chown(path, NOBODY, NOBODY)

    def run(self, name: str, *more: str, traced: bool) -> Outcomes:
        """Run the suite; RuntimeError with its last lines if it wrote no report."""
        report = self._folder / f"{name}.xml"
        suite = [self._python, *self._suite.arguments, *more, f"{self._suite.report}{report}"]
        if traced:
            trace = str(self._folder / f"{name}.trace")
            command, env = [str(COMMAND), "run", "-o", trace, "--", *suite], self._env | AS_NOBODY
        else:
            drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            command, env = [*drop, *suite], self._env
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            # a shell's background job ignores SIGINT, for which some tests wait
            subprocess.run(
                ["env", "--default-signal=INT", *command],
                cwd=self._folder,
                env=env,
                stdout=out,
                stderr=out,
                check=False,
                timeout=1800,
            )
        if not report.exists():
            raise RuntimeError("\n".join(log.read_text(errors="replace").splitlines()[-15:]))
        if traced:
            self.agents(Path(trace))
        return outcomes(report)

    def agents(self, trace: Path) -> None:
        """Make sure that the agent was there; RuntimeError if not."""
        done = subprocess.check_output([COMMAND, "info", trace, "--json"], text=True)
        if not any(target.get("agent") == "c" for target in json.loads(done)["targets"]):
            raise RuntimeError("the agent was in no process: nothing is shown by this")


def compare(name: str, python: str, *more: str) -> tuple[Outcomes, set[str], set[str]]:
    """Return what came of a suite without awaitscope, what differs with it, and what is flaky."""
    with tempfile.TemporaryDirectory(prefix="awaitscope-guest-") as text:
        folder = Path(text)
        os.chown(folder, NOBODY, NOBODY)
        runner = Runner(SUITES[name], python, folder)
        runner.get()
        plain = runner.run("plain", *more, traced=False)
        differs = different(plain, runner.run("traced", *more, traced=True))
        flaky = differs & different(
            plain, runner.run("again", *more, traced=False) if differs else {}
        )
    return plain, differs - flaky, flaky


def main() -> int:
    """Print the table; 1 if a test differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="default: all")
    parser.add_argument("--python", action="append", help="default: /usr/bin/python3")
    options = parser.parse_args()
    rows, bad = [], False
    for python in options.python or ["/usr/bin/python3"]:
        for name in options.suite or SUITES:
            plain, differs, flaky = compare(name, python)
            bad |= bool(differs) or not plain
            passed = sum(kinds == ["passed"] for kinds in plain.values())
            rows.append([python, name, len(plain), passed, len(differs), len(flaky)])
            for test in sorted(differs):
                print(f"differs: {name}: {test}")
    print(tabulate(rows, ["python", "suite", "tests", "passed", "differ", "flaky"]))
    return bad


if __name__ == "__main__":
    sys.exit(main())
