"""The wheel, and what `make` leaves behind under sudo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.mark.slow
def test_the_wheel_holds_probes_and_demos_where_they_are_found(tmp_path: Path) -> None:
    """An installed copy needs no checkout; no test is installed."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], check=True, cwd=CHECKOUT)
    (wheel,) = tmp_path.glob("awaitscope-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("tests/", "probes/", "."))]
    ask = "from tracer.paths import *; print(probes_dir()); print(demos_dir())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {ask}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    found = [Path(line) for line in done.stdout.split()]
    assert found == [site / "tracer/_probes", site / "tracer/_demos"]
    for installed, source in zip(found, ("probes", "demos"), strict=True):
        for path in (CHECKOUT / source).rglob("*.[chp]*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (installed / path.relative_to(CHECKOUT / source)).is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
@pytest.mark.parametrize("owner", [0, NOBODY])
@pytest.mark.parametrize("code", [0, 3])
def test_under_sudo_new_files_belong_to_the_invoking_user(
    tmp_path: Path, owner: int, code: int
) -> None:
    """Also when the command fails, and its exit code is kept."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci/owned", tmp_path / ".ci/owned")
    (tmp_path / "old").touch()
    os.chown(tmp_path, owner, owner)
    done = subprocess.run(
        [tmp_path / ".ci/owned", "sh", "-c", f"sleep 0.02; mkdir sub; touch sub/new; exit {code}"],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)},
    )
    assert done.returncode == code
    assert {(tmp_path / name).stat().st_uid for name in ("sub", "sub/new")} == {NOBODY}
    assert (tmp_path / "old").stat().st_uid == owner
