"""The second verb: from a set to a verdict on it.

`judge` trains networks on the set and tests them on real images, `baselines` makes the random sets
beside it, `verdict` holds what came out, and `compose` finds judges, teacher and test data for a
set and its stored protocol.
"""
