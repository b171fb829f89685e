"""The machine's side: device and memory, randomness, storage, progress, and what diverged.

Nothing here knows what is distilled. `device` says where tensors live and in which precision,
`randomness` makes generators as functions of seed, stream and counters, `storage` writes whole
files in one step.
"""
