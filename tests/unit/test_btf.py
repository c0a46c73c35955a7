"""Offsets and prototypes from BTF."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tracer.system.btf import Btf

VMLINUX = Path("/sys/kernel/btf/vmlinux")


def test_offsets_descend_named_and_anonymous_members(tiny_btf: bytes) -> None:
    """A member is found through const, named structs and anonymous unions, in bytes."""
    btf = Btf(tiny_btf)
    assert btf.offset("sock_common", "first") == 0
    assert btf.offset("sock_common", "skc_num") == 8
    assert btf.offset("sock", "__sk_common.skc_num") == 8
    assert btf.offset("sock", "last") == 16
    assert btf.sizeof("sock") == 20


def test_bit_fields_do_not_spoil_offsets(tiny_btf: bytes) -> None:
    """With kind_flag set, the size in an offset's upper byte is no part of it."""
    btf = Btf(tiny_btf)
    assert btf.offset("flags", "low") == 0
    assert btf.offset("flags", "rest") == 4


def test_a_tracepoint_counts_its_arguments_without_the_leading_pointer(tiny_btf: bytes) -> None:
    """The typedef btf_trace_NAME is a raw tracepoint's prototype."""
    btf = Btf(tiny_btf)
    assert btf.raw_tracepoint_args("sk_data_ready") == 2
    assert btf.raw_tracepoint_args("no_such") is None


def test_enums_keep_sign_and_width(tiny_btf: bytes) -> None:
    """kind_flag makes values signed, enum64 has 8 bytes, and types behind them are found."""
    btf = Btf(tiny_btf)
    assert btf.enum("state") == {"LOST": -1, "FOUND": 1}
    assert btf.enum("mask") == {"HIGH": 1 << 32, "LOW": (1 << 32) - 1}
    assert btf.offset("tail", "y") == 4
    with pytest.raises(KeyError, match="sock"):
        btf.enum("sock")


def test_what_is_missing_is_named(tiny_btf: bytes) -> None:
    """A KeyError carries the name; types behind an unusual kind are still found."""
    btf = Btf(tiny_btf)
    with pytest.raises(KeyError, match=r"sock\.nothing"):
        btf.offset("sock", "nothing")
    with pytest.raises(KeyError, match="absent"):
        btf.sizeof("absent")
    assert not btf.has_member("sock", "nothing")
    assert btf.has_func("sock_def_readable")
    assert not btf.has_func("sock")
    assert btf.sizeof("after") == 4


def test_other_files_are_refused() -> None:
    """A blob without BTF's magic number is an error, not nonsense."""
    with pytest.raises(ValueError, match="BTF"):
        Btf(bytes(64))


@pytest.mark.slow
@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
@pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool is not installed")
def test_the_running_kernel_reads_as_bpftool_reads_it() -> None:
    """Sizes, member offsets and argument counts agree with bpftool's."""
    btf = Btf.load()
    dump = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(VMLINUX)], check=True, capture_output=True
    )
    types = json.loads(dump.stdout)["types"]
    structs = {"sock", "sock_common", "task_struct", "sk_buff", "tcp_sock", "file", "irqaction"}
    compared = enums = 0
    for entry in types:
        if entry["kind"] == "STRUCT" and entry["name"] in structs:
            assert btf.sizeof(entry["name"]) == entry["size"]
            for member in entry["members"]:
                if member["name"] != "(anon)":
                    expected = member["bits_offset"] // 8
                    assert btf.offset(entry["name"], member["name"]) == expected
                    compared += 1
        if entry["kind"] == "ENUM" and entry["name"] == "bpf_map_type":
            values = {value["name"]: value["val"] for value in entry["values"]}
            assert btf.enum("bpf_map_type") == values
            enums += 1
    assert compared > 200
    assert enums == 1
    by_id = {entry["id"]: entry for entry in types}
    for entry in types:
        if entry["kind"] == "TYPEDEF" and entry["name"].startswith("btf_trace_"):
            proto = by_id[by_id[entry["type_id"]]["type_id"]]
            name = entry["name"].removeprefix("btf_trace_")
            assert btf.raw_tracepoint_args(name) == proto["vlen"] - 1
