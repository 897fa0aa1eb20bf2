"""Checksums that cost next to nothing: XXH3-64, by which rotten bytes are seen as they are read.

Ten times as fast as SHA-256, and not cryptographic: they find damage, not forgery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

READ_BYTES = 1 << 20
"""Read and summed at once: what was read is in the processor's cache still."""
BLOCK_BYTES = 1 << 17
"""Of vectors under one sum, at most: what a single picked vector costs to check."""


def sum_of(data: bytes | memoryview | npt.NDArray[Any]) -> int:
    """XXH3-64 of some bytes, or of those of a C-contiguous array, as an unsigned number."""
    import xxhash

    if not isinstance(data, bytes | memoryview):
        data = data.reshape(-1).view("u1").data
    return xxhash.xxh3_64_intdigest(data)


def sum_of_file(path: Path) -> str:
    """Hexadecimal XXH3-64 of a file's bytes."""
    import xxhash

    total = xxhash.xxh3_64()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(READ_BYTES))
        while count := file.readinto(buffer):
            total.update(buffer[:count])
    return total.hexdigest()


def rows_per_block(row_bytes: int) -> int:
    """Vectors under one sum: the largest power of two of them that take `BLOCK_BYTES` at most, and at least one."""
    return 1 << max(0, (BLOCK_BYTES // max(row_bytes, 1)).bit_length() - 1)


def block_sums(data: memoryview, block_bytes: int) -> Iterator[int]:
    """The sum of each block of `block_bytes` of `data` (a view of bytes); the last may be shorter."""
    import xxhash

    for at in range(0, len(data), block_bytes):
        yield xxhash.xxh3_64_intdigest(data[at : at + block_bytes])


def sums_of(arrays: Mapping[str, npt.NDArray[Any]], vectors: str, *, size: int = 0) -> npt.NDArray[np.uint64]:
    """The sums that a vector part carries (n,).

    How many vectors are under one (`size`; `rows_per_block` by default), one sum of each other array in the order of `arrays`,
    then one a block of the array called `vectors`.
    """
    import numpy as np

    table = np.ascontiguousarray(arrays[vectors])
    row_bytes = table.shape[1] * table.dtype.itemsize
    size = size or rows_per_block(row_bytes)
    others = [sum_of(np.ascontiguousarray(array)) for name, array in arrays.items() if name != vectors]
    blocks = block_sums(table.reshape(-1).view(np.uint8).data, size * row_bytes)
    return np.asarray([size, *others, *blocks], "<u8")
