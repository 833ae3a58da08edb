"""Seeds from names."""

from bla.runtime.seeds import derive_seed


def test_seeds_depend_on_every_part_and_on_their_order():
    seeds = {
        derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (1, "a", 0), (0, "a1"), ("a", 0, 1), (0, "b", 1)]
    }
    assert len(seeds) == 6
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
