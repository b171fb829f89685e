"""Randomness is a function of seed, name and counters, and of nothing else."""

from __future__ import annotations

import torch

from ddkit.runtime import randomness


def test_equal_arguments_give_equal_draws_whatever_came_before():
    first = torch.rand(5, generator=randomness.generator(1, "real", 7))
    for step in range(7):
        randomness.generator(1, "real", step)
    torch.rand(3)
    assert torch.equal(first, torch.rand(5, generator=randomness.generator(1, "real", 7)))


def test_seed_name_and_every_counter_matter():
    seeds = [
        randomness.derive(*arguments)  # type: ignore[arg-type]
        for arguments in [
            (0, "real"),
            (1, "real"),
            (0, "augment"),
            (0, "real", 0),
            (0, "real", 1),
            (0, "real", 0, 0),
            (0, "real", 10),
            (0, "real", 1, 0),
            (0, "real", 0, 1),
        ]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)


def test_a_stream_is_the_same_in_every_process_and_release():
    assert randomness.derive(3, "networks", 4) == 5911686814052048536


def test_the_global_generator_is_seeded_inside_the_block_and_restored_after():
    torch.random.default_generator.manual_seed(0)
    expected = torch.rand(4)
    torch.random.default_generator.manual_seed(0)
    with randomness.global_generator(1, "networks"):
        one = torch.rand(3)
    with randomness.global_generator(1, "networks"):
        assert torch.equal(one, torch.rand(3))
    assert torch.equal(torch.rand(4), expected)
