"""Where every random number of lesionforge begins: a 64-bit seed a case, derived and never drawn."""

from __future__ import annotations

import hashlib
import struct

SEED_LIMIT = 2**64


def case_seed(run_seed: int, index: int) -> int:
    """Return the 64-bit seed of case ``index`` in a run seeded with ``run_seed``.

    Both arguments lie in [0, 2**64). The seed is the first eight bytes of BLAKE2b over both numbers, so it depends
    on nothing else: neither on the number of cases nor on shards, workers or batch size.
    """
    return _first_eight_bytes(struct.pack("<QQ", run_seed % SEED_LIMIT, index))


def name_seed(*names: str) -> int:
    """Return a 64-bit seed for a named thing, such as a real image by its id or a training job by its name."""
    return _first_eight_bytes("\x00".join(names).encode())


def _first_eight_bytes(message: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
