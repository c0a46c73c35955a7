"""Build what a guest boots from: a root file system and a kernel, from Debian's packages.

No loop mounts and no partitions: mmdebstrap fills a folder, mke2fs makes an image of it; a kernel
is never installed, only unpacked, and its few modules travel in the initrd. Both are kept in the
user's cache under the hash of all that went in.
"""

from __future__ import annotations

import inspect
import lzma
import os
import re
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.debian import BuildFailed, building, key_of, mirror, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PROVISION = ROOT / "demos" / "provision.sh"
ROOT_BYTES = 3 << 30  # a sparse file
_LAB_PACKAGES = ("kmod", "procps", "util-linux", "busybox-static")
_WITHOUT = ("share/doc", "share/man", "share/locale", "share/info", "lib/postgresql/*/lib/bitcode")
# in the order of their use; a kernel may have some built in
_MODULES = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"),
    *("crc32c_generic", "crc32c_intel", "ext4", "e1000", "e1000e"),
)


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot: its file, an initrd with its modules, and its release."""

    image: Path
    initrd: Path
    release: str


def cache_folder() -> Path:
    """Return where images are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "awaitscope" / "vm"


def _dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["demo"]]


@dataclass(frozen=True)
class Root:
    """A root file system with both roles' packages: the image, and the folder it was made from."""

    image: Path
    folder: Path

    def build_agent(self, into: Path) -> None:
        """Compile the agent for the guests' Python into a folder; they would take a minute."""
        with tempfile.TemporaryDirectory(dir=self.folder / "tmp") as scratch:
            for part in ("tracer/agent", "probes/include"):
                shutil.copytree(ROOT / part, Path(scratch, part))
            inside = Path("/", Path(scratch).relative_to(self.folder))
            script = inside / "tracer/agent/build.py"
            run("chroot", self.folder, "python3", "-I", "-S", script, inside / "cache")
            shutil.copytree(Path(scratch, "cache"), into)


def root_of(suite: str, say: Callable[[str], None]) -> Root:
    """Return the root file system of a suite, built if it is not there.

    Args:
        suite: Debian's name of the release, such as `bookworm`.
        say: told one line when there is something to build.

    """
    guest_files = [path.read_bytes() for path in sorted((HERE / "guest").iterdir())]
    recipe = inspect.getsource(_build_root) + repr((ROOT_BYTES, _LAB_PACKAGES, _WITHOUT))
    key = key_of(suite, recipe, PROVISION.read_bytes(), *guest_files, *_dependencies())
    with building(cache_folder(), f"root-{suite}-{key}") as (final, fresh):
        if fresh:
            say(f"building the guests' root file system ({suite}) …")
            _build_root(suite, fresh)
    return Root(final / "root.img", final / "root")


def _build_root(suite: str, folder: Path) -> None:
    root = folder / "root"
    packages = run("sh", PROVISION, "packages", "app", "db").split()
    excluded = [f"--dpkgopt=path-exclude=/usr/{path}/*" for path in _WITHOUT]
    run(
        # its mounts go with it, also if it is interrupted
        *("unshare", "--mount", "--propagation", "private"),
        *("mmdebstrap", "--variant=minbase", "--aptopt=APT::Install-Recommends false"),
        *('--aptopt=Acquire::Languages "none"', *excluded),
        *(f"--include={','.join([*packages, *_LAB_PACKAGES])}", suite, root, mirror()),
    )
    python = next((root / "usr/lib").glob("python3.*")).name
    site = root / "usr/local/lib" / python / "dist-packages"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--python-version", python.removeprefix("python")),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
        *("--target", site, *_dependencies()),
        env={"PIP_ROOT_USER_ACTION": "ignore"},
    )
    (site / "awaitscope.pth").write_text("/lab/job/src\n")
    for name in ("init", "awaitscope", "server"):
        target = root / "lab" / name if name == "init" else root / "usr/local/bin" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(HERE / "guest" / name, target)
        target.chmod(0o755)
    run("sh", PROVISION, "server", "10.0.0.0/8", root)
    run("sh", PROVISION, "client", "10.0.2.22", root)
    for settings in root.glob("etc/postgresql/*/main/conf.d"):
        shutil.copy(HERE / "guest" / "postgresql.conf", settings / "lab.conf")
    image = folder / "root.img"
    with image.open("wb") as file:
        file.truncate(ROOT_BYTES)
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", root, image)


def kernel_of(suite: str, say: Callable[[str], None], flavour: str = "cloud-amd64") -> Kernel:
    """Return the newest kernel of a suite, fetched if it is not there.

    Versions of moving suites vanish from the archive, so the number is asked for, never pinned.

    Args:
        suite: such as `bookworm-backports`.
        say: told one line when there is something to fetch.
        flavour: `cloud-amd64` knows virtio only, `amd64` all cards.

    """
    env = _archive(suite)
    meta = f"linux-image-{flavour}/{suite}"
    shown = run("apt-cache", "show", meta, env=env)
    found = re.search(r"^Depends:.*?(linux-image-(\S+)) \(= (\S+)\)", shown, re.MULTILINE)
    if found is None:
        raise BuildFailed(f"{meta} names no kernel:\n{shown[:500]}")
    package, release, version = found.groups()
    busybox = Path("/bin/busybox").read_bytes()
    recipe = inspect.getsource(_build_kernel) + inspect.getsource(_make_initrd) + repr(_MODULES)
    key = key_of(package, version, recipe, _initrd_text(), busybox)
    with building(cache_folder(), f"kernel-{suite}-{flavour}-{key}") as (final, fresh):
        if fresh:
            say(f"fetching Linux {release} ({suite}) …")
            _build_kernel(package, release, fresh, env)
    return Kernel(final / "vmlinuz", final / "initrd.gz", release)


@cache
def _archive(suite: str) -> dict[str, str]:
    """Make apt know one suite, apart from this machine's own sources; return what selects it."""
    base = cache_folder() / "apt" / suite
    for part in ("state/lists/partial", "cache/archives/partial"):
        (base / part).mkdir(parents=True, exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (base / "sources.list").write_text(f"deb [signed-by={keys}] {mirror()} {suite} main\n")
    (base / "apt.conf").write_text(
        f'Dir::State "{base}/state";\nDir::State::status "/dev/null";\n'
        f'Dir::Cache "{base}/cache";\nDir::Etc::sourcelist "{base}/sources.list";\n'
        'Dir::Etc::sourceparts "/dev/null";\nAcquire::Languages "none";\n'
        'APT::Sandbox::User "root";\n'
    )
    env = {"APT_CONFIG": str(base / "apt.conf")}
    run("apt-get", "update", env=env)
    return env


def _build_kernel(package: str, release: str, folder: Path, env: dict[str, str]) -> None:
    parts = [package]
    if "binary" in run("apt-cache", "depends", package, env=env):  # 7.x is split
        parts = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    run("apt-get", "download", *parts, cwd=folder, env=env)
    tree = folder / "tree"
    for deb in folder.glob("*.deb"):
        run("dpkg-deb", "-x", deb, tree)
        deb.unlink()
    if (tree / "usr/lib/modules").is_dir():  # depmod looks below lib
        (tree / "lib").symlink_to("usr/lib")
    modules = tree / "lib/modules" / release
    boots = [tree / f"boot/vmlinuz-{release}", modules / "vmlinuz"]
    shutil.copy(next(path for path in boots if path.exists()), folder / "vmlinuz")
    run("depmod", "-b", tree, release)
    _make_initrd(modules, folder)
    shutil.rmtree(tree)


def _initrd_text() -> str:
    return (HERE / "guest" / "initrd-init").read_text()


def _make_initrd(modules: Path, folder: Path) -> None:
    """Pack busybox, the modules in the order of their needs, and the script that loads them."""
    content = folder / "initrd"
    for part in ("bin", "proc", "sys", "dev", "root", "modules"):
        (content / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", content / "bin/busybox")
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: list[str] = []

    def want(path: str) -> None:
        for other in reversed(needs[path]):
            if other not in order:
                want(other)
        if path not in order:
            order.append(path)

    for name in _MODULES:
        if name in by_name:
            want(by_name[name])
    for path in order:
        data = (modules / path).read_bytes()
        name = Path(path).name.removesuffix(".xz")
        (content / "modules" / name).write_bytes(
            lzma.decompress(data) if path.endswith(".xz") else data
        )
    (content / "modules/order").write_text(
        "".join(f"{Path(path).name.removesuffix('.xz')}\n" for path in order)
    )
    (content / "init").write_text(_initrd_text())
    (content / "init").chmod(0o755)
    run(
        *("sh", "-euc", "cd initrd && find . | cpio --quiet -o -H newc | gzip -1 >../initrd.gz"),
        cwd=folder,
    )
    shutil.rmtree(content)
