"""A library that Wine 8 lacks and real Windows has: ``bcryptprimitives.dll``, from which Rust programs have chance."""

from __future__ import annotations

import struct

BASE, SECTION, ALIGNMENT = 0x180000000, 0x1000, 0x200


def library(name: str, forwards: dict[str, str]) -> bytes:
    """
    A library for x64 that has no code, but names for functions of other ones.

    Args:
        forwards: the function of another library, as in ``advapi32.SystemFunction036``, by the name here.
    """
    names, count = sorted(forwards), len(forwards)
    addresses = SECTION + 40
    pointers = addresses + 4 * count
    ordinals = pointers + 4 * count
    strings = bytearray()

    def put(text: str) -> int:
        place = ordinals + 2 * count + len(strings)
        strings.extend(text.encode() + b"\0")
        return place

    directory = struct.pack("<12xI6I", put(name), 1, count, count, addresses, pointers, ordinals)
    tables = struct.pack(f"<{2 * count}I", *[put(forwards[each]) for each in names], *[put(each) for each in names])
    section = directory + tables + struct.pack(f"<{count}H", *range(count)) + bytes(strings)
    content = section.ljust(-(-len(section) // ALIGNMENT) * ALIGNMENT, b"\0")

    # The headers, by Microsoft's "PE Format"; what is left out is zero.
    header = b"MZ".ljust(60, b"\0") + struct.pack("<I4s", 64, b"PE\0\0")
    header += struct.pack("<HH12xHH", 0x8664, 1, 240, 0x2022)
    header += struct.pack("<H6xI8xI", 0x20B, len(content), SECTION)
    header += struct.pack("<QII", BASE, SECTION, ALIGNMENT)
    header += struct.pack("<HHHHHHIIIIHH", 6, 0, 0, 0, 6, 0, 0, 2 * SECTION, ALIGNMENT, 0, 2, 0x100)
    header += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    header += struct.pack("<II120x", SECTION, len(section))
    header += struct.pack("<8sIIII12xI", b".rdata", len(section), SECTION, len(content), ALIGNMENT, 0x40000040)
    return header.ljust(ALIGNMENT, b"\0") + content


def bcryptprimitives() -> bytes:
    """Windows' ProcessPrng; RtlGenRandom takes the same and does the same."""
    return library("bcryptprimitives.dll", {"ProcessPrng": "advapi32.SystemFunction036"})
