"""Seeds derived from names, so that a run's random numbers do not depend on what else runs."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from the parts, e.g. `derive_seed(0, "cub20", "bla_t", 7)`; every part matters, order included."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
