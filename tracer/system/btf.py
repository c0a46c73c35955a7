"""Read the running kernel's BTF: struct offsets, raw tracepoint arguments, enums.

Format: Documentation/bpf/btf.rst. Struct layouts move between kernels, so every offset that
a probe uses comes from here.
"""

from __future__ import annotations

import struct
from pathlib import Path

_PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _FUNC, _FUNC_PROTO = 2, 3, 4, 5, 6, 8, 12, 13
_ENUM64 = 19
_MODIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type_tag
# bytes behind the 12-byte head: a fixed part, and one per vlen entry
_FIXED_TAIL = {1: 4, _ARRAY: 12, 14: 4, 17: 4}
_ENTRY_TAIL = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, 15: 12, _ENUM64: 12}


class Btf:
    """One BTF blob; look-ups raise KeyError with the name that is missing."""

    def __init__(self, blob: bytes) -> None:
        """Index the type section; about 0.1 s for a kernel's 120 000 types."""
        magic, _version, _flags, hdr_len, type_off, type_len, str_off, str_len = struct.unpack_from(
            "<HBBIIIII", blob
        )
        if magic != 0xEB9F:
            raise ValueError("not little-endian BTF")
        self._blob = blob
        self._strings = blob[hdr_len + str_off : hdr_len + str_off + str_len]
        self._at = [0]  # type id -> offset of its 12-byte head
        self._named: dict[int, list[int]] = {}  # name offset -> type ids
        pos, end = hdr_len + type_off, hdr_len + type_off + type_len
        unpack = struct.Struct("<II").unpack_from
        at, named = self._at, self._named
        while pos < end:
            name, info = unpack(blob, pos)
            kind = (info >> 24) & 31
            if name:
                named.setdefault(name, []).append(len(at))
            at.append(pos)
            pos += 12 + _FIXED_TAIL.get(kind, 0) + (info & 0xFFFF) * _ENTRY_TAIL.get(kind, 0)

    @classmethod
    def load(cls, path: str | Path = "/sys/kernel/btf/vmlinux") -> Btf:
        """Read the kernel's own BTF; OSError where there is none."""
        return cls(Path(path).read_bytes())

    def _head(self, type_id: int) -> tuple[int, int, int, int]:
        name, info, size_or_type = struct.unpack_from("<III", self._blob, self._at[type_id])
        return name, (info >> 24) & 31, info & 0xFFFF, size_or_type

    def _kind_flag(self, type_id: int) -> bool:
        return bool(struct.unpack_from("<I", self._blob, self._at[type_id] + 4)[0] >> 31)

    def _strip(self, type_id: int) -> int:
        while True:
            _name, kind, _vlen, target = self._head(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target

    def _find(self, name: str, kinds: set[int]) -> int:
        wanted = name.encode()
        at = 0 if self._strings.startswith(wanted + b"\0") else -1
        if at < 0:
            at = self._strings.find(b"\0" + wanted + b"\0")
            at = at + 1 if at >= 0 else -1
        for type_id in self._named.get(at, ()):
            if self._head(type_id)[1] in kinds:
                return type_id
        raise KeyError(name)

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """Return (bit offset, type id) of a member, descending into anonymous members."""
        _n, kind, vlen, _size = self._head(type_id)
        if kind not in (_STRUCT, _UNION):
            return None
        flagged = self._kind_flag(type_id)
        base = self._at[type_id] + 12
        for i in range(vlen):
            name_off, member_type, offset = struct.unpack_from("<III", self._blob, base + 12 * i)
            bits = offset & 0xFFFFFF if flagged else offset
            if name_off and self._string(name_off) == name:
                return bits, member_type
            if not name_off:
                inner = self._member(self._strip(member_type), name)
                if inner:
                    return bits + inner[0], inner[1]
        return None

    def offset(self, struct_name: str, path: str) -> int:
        """Return the offset in bytes of a member such as `__sk_common.skc_num`."""
        type_id, bits = self._find(struct_name, {_STRUCT, _UNION}), 0
        for part in path.split("."):
            found = self._member(self._strip(type_id), part)
            if found is None:
                raise KeyError(f"{struct_name}.{path}")
            bits += found[0]
            type_id = found[1]
        return bits // 8

    def has_member(self, struct_name: str, path: str) -> bool:
        """Say whether a struct has a member."""
        try:
            self.offset(struct_name, path)
        except KeyError:
            return False
        return True

    def sizeof(self, struct_name: str) -> int:
        """Return the size of a struct in bytes."""
        return self._head(self._find(struct_name, {_STRUCT, _UNION}))[3]

    def enum(self, name: str) -> dict[str, int]:
        """Return the names and values of an enum; kind_flag says that values are signed."""
        type_id = self._find(name, {_ENUM, _ENUM64})
        _n, kind, vlen, _size = self._head(type_id)
        # btf_enum64 has its low half first: on little endian one 8-byte value
        code = "q" if kind == _ENUM64 else "i"
        entry = struct.Struct("<I" + (code if self._kind_flag(type_id) else code.upper()))
        base = self._at[type_id] + 12
        pairs = (entry.unpack_from(self._blob, base + entry.size * i) for i in range(vlen))
        return {self._string(at): value for at, value in pairs}

    def raw_tracepoint_args(self, name: str) -> int | None:
        """Return how many arguments a raw tracepoint passes, None if the kernel lacks it.

        The typedef `btf_trace_NAME` is its prototype; the leading `void *` is left out.
        """
        try:
            type_id = self._find("btf_trace_" + name, {_TYPEDEF})
        except KeyError:
            return None
        type_id = self._strip(type_id)
        _n, kind, vlen, target = self._head(type_id)
        if kind == _PTR:
            _n, kind, vlen, target = self._head(self._strip(target))
        return vlen - 1 if kind == _FUNC_PROTO else None

    def has_func(self, name: str) -> bool:
        """Say whether the kernel has a function of this name in its BTF."""
        try:
            self._find(name, {_FUNC})
        except KeyError:
            return False
        return True
