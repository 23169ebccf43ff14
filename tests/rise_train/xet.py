"""Reading what huggingface_hub uploads by the Xet protocol: files cut into chunks, chunks packed into xorbs, and shards
that say which chunks make which file. Chunks must come uncompressed: HF_XET_DATA_XORB_COMPRESSION_POLICY=none.
"""

import struct
from collections.abc import Iterator

SIZE = 48
"""Bytes of every entry of a shard."""
VERIFIED, DESCRIBED = 1 << 31, 1 << 30
"""Flags of a file: one more entry for each of its segments; one more entry for the file."""


def unpack(xorb: bytes) -> list[bytes]:
    """The chunks of a xorb. Each has 8 bytes before it: version, size (3), compression, size once decompressed (3)."""
    chunks, at = [], 0
    while at < len(xorb):
        version, low, high, compression = struct.unpack_from("<BHBB", xorb, at)
        assert (version, compression) == (0, 0)
        size = low + (high << 16)
        chunks.append(xorb[at + 8 : at + 8 + size])
        at += 8 + size
    return chunks


def files_of(shard: bytes, xorbs: dict[str, list[bytes]]) -> Iterator[bytes]:
    """The contents of the files that a shard describes, put together from the chunks of `xorbs`."""
    at = SIZE
    while shard[at : at + 32] != b"\xff" * 32:
        flags, segments = struct.unpack_from("<32xII", shard, at)
        parts = [struct.unpack_from("<32s4xIII", shard, at + SIZE * (1 + i)) for i in range(segments)]
        chunks = [chunk for name, _, first, last in parts for chunk in xorbs[name_of(name)][first:last]]
        assert sum(map(len, chunks)) == sum(part[1] for part in parts)
        yield b"".join(chunks)
        at += SIZE * (1 + segments * (2 if flags & VERIFIED else 1) + (1 if flags & DESCRIBED else 0))


def name_of(raw: bytes) -> str:
    """A hash as addresses write it: four numbers of 64 bits."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", raw))
