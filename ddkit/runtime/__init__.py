"""The machine's side: device and memory, randomness, storage, progress, and what diverged.

Nothing here knows what is distilled. `device` says where tensors live and in which precision,
`randomness` makes generators as functions of seed, stream and counters, `storage` writes whole
files in one step, `parts` keeps large parts of a state by their content, `lock` keeps a place for
one process.
"""
