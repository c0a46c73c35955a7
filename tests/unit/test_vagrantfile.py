"""The Vagrantfile and the script that provisions its machines, as far as they go without a box."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVISION = ROOT / "demos" / "provision.sh"
FILES = ("Vagrantfile", "demos/provision.sh")


def validate(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Validate a Vagrantfile; the provider, which is not installed here, is left out."""
    if shutil.which("vagrant") is None:
        pytest.skip("vagrant is not installed")
    (folder / "Vagrantfile").write_text(text)
    (folder / "demos").mkdir(exist_ok=True)
    shutil.copy(PROVISION, folder / "demos")
    home = {"VAGRANT_HOME": str(folder / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=folder,
        env={**os.environ, **home, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    """Vagrant accepts it, and would not if a setting were misspelt."""
    text = (ROOT / "Vagrantfile").read_text()
    done = validate(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = validate(tmp_path, text.replace("machine.vm.hostname", "machine.vm.hostnam"))
    assert wrong.returncode != 0
    assert "hostnam" in wrong.stdout + wrong.stderr


def provision(*args: str | Path) -> str:
    """Run the script and return what it prints."""
    command = ["sh", str(PROVISION), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_server_is_opened_once(tmp_path: Path) -> None:
    """Provisioning twice leaves one line, for the demo's role and from the network alone."""
    main = tmp_path / "etc/postgresql/15/main"
    main.mkdir(parents=True)
    (main / "pg_hba.conf").write_text("local all all peer\n")
    for _ in range(2):
        provision("server", "192.168.56.0/24", tmp_path)
    lines = (main / "pg_hba.conf").read_text().splitlines()
    assert lines == ["local all all peer", "host all demo 192.168.56.0/24 scram-sha-256"]
    assert (main / "conf.d/awaitscope.conf").read_text() == "listen_addresses = '*'\n"


def test_the_demo_knows_the_server(tmp_path: Path) -> None:
    """The app's shells, and sudo in them, name the server to `awaitscope demo`."""
    provision("client", "192.168.56.11", tmp_path)
    show = f'. {tmp_path}/etc/profile.d/awaitscope.sh; echo "$AWAITSCOPE_DSN"'
    done = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "postgresql://demo:demo@192.168.56.11:5432/postgres?sslmode=disable\n"
    kept = tmp_path / "etc/sudoers.d/awaitscope"
    assert kept.read_text() == 'Defaults env_keep += "AWAITSCOPE_DSN"\n'
    assert kept.stat().st_mode & 0o777 == 0o440


def test_an_unknown_role_is_refused() -> None:
    """A role that is none of the two ends the script with 2."""
    done = subprocess.run(
        ["sh", str(PROVISION), "packages", "web"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
