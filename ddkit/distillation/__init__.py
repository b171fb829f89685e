"""The first verb: from a recipe to a set in a run folder.

`compose` makes live parts of a recipe, `requirements` refuses what cannot go together, `preflight`
says what the run will need, `loop` takes the steps, and `folder` and `checkpoint` keep them;
`identity` is what makes two runs the same. `bench` is the same on tiny parts, to try a method on.
"""
