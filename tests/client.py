"""A user's program of public names alone, for the type checker: see test_api.py."""

import ddkit


class Telling(ddkit.Reporter):
    """A reporter with one method of its own."""

    def note(self, text: str) -> None:
        self.said = text


def main(path: str) -> list[float | None]:
    recipe: ddkit.Recipe = ddkit.Recipe.load("dm-digits-ipc1", {"method.iterations": 5})
    try:
        outcome = ddkit.distill(recipe, {"synthetic": {"ipc": 1}}, path, Telling())
    except ddkit.RecipeError as error:
        raise SystemExit(error.exit_code) from error
    made: ddkit.SyntheticSet = outcome.synthetic
    data: ddkit.Dataset = outcome.dataset
    verdict = ddkit.evaluate(made, "convnet", seeds=1, dataset=data, settings={"epochs": 1})
    images = ddkit.load(path, pixels=True)
    first: int = images.targets[0]
    names: list[str] = images.classes
    return [result.mean for result in verdict.results if names[first]]
