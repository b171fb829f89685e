"""The first verb: from a recipe to a set in a run folder.

`compose` makes live parts of a recipe, `requirements` refuses what cannot go together, `preflight`
says what the run will need, `start` makes the first state, `loop` takes the steps, `checkpoint`
keeps them, and `failures` has the words for what stops a run. `bench` is the same on tiny parts, to
try a method on.
"""
