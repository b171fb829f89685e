"""ZCA whitening: uncorrelated pixels, undone exactly, kept in the set, refused where too large."""

import pytest
import torch

from ddkit.data import DataInfo, Dataset, MemoryImages
from ddkit.errors import DataError, IncompatibleError, RecipeError
from ddkit.evaluation.baselines import check_data
from ddkit.images.real import make_dataset
from ddkit.images.synthetic import SyntheticSet
from ddkit.images.whitening import fit, whitened
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import Part

PLACE = Place(Source("test"), "dataset")


def test_whitened_pixels_are_uncorrelated():
    mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5000, 12, generator=torch.Generator().manual_seed(1)) @ mixing
    y = fit(x.view(-1, 3, 2, 2), epsilon=1e-6).apply(x.view(-1, 3, 2, 2)).flatten(1)
    covariance = y.T @ y / len(y)
    assert (covariance - torch.eye(12)).abs().max() < 1e-2


def test_normalising_and_back_gives_the_pixels(tiny):
    info = whitened(tiny).info
    pixels = tiny.train.images[:8].float() / 255
    assert (info.normalize(pixels) - tiny.info.normalize(pixels)).abs().max() > 0.1
    assert (info.denormalize(info.normalize(pixels)) - pixels).abs().max() < 1e-3


def test_the_fit_is_cached_and_part_of_the_fingerprint(tiny, own_home):
    first, again = whitened(tiny), whitened(tiny)
    assert list((own_home / "cache" / "whitening").glob("*.safetensors"))
    assert first.fingerprint() == again.fingerprint() != tiny.fingerprint()


def test_a_set_brings_its_whitening_along(tiny, tmp_path):
    info = whitened(tiny).info
    labels = torch.arange(3)
    syn = SyntheticSet(torch.nn.Parameter(torch.randn(3, *info.shape)), labels, info)
    syn.save(tmp_path / "set.safetensors")
    loaded = SyntheticSet.load(tmp_path / "set.safetensors")
    assert torch.equal(loaded.info.whitening.matrix, info.whitening.matrix)
    assert torch.allclose(loaded.pixels(), syn.pixels())
    check_data(loaded, tiny)  # judged on plain data, which the set's own whitening is applied to


def test_a_cache_that_cannot_be_written_costs_a_warning_and_not_the_fit(
    tiny, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "file"))
    fitted = whitened(tiny).info.whitening
    assert fitted is not None
    assert "fitted again next time" in caplog.text


def test_every_dataset_takes_zca_and_refuses_another_type(loaded):
    data = make_dataset(Part("digits", {"zca": True, "resolution": 8}), loaded, PLACE)
    assert data.info.whitening is not None
    with pytest.raises(RecipeError, match=r"dataset\.zca: must be true or false"):
        make_dataset(Part("digits", {"zca": 1}), loaded, PLACE)


def test_large_images_are_refused_with_the_reason():
    info = DataInfo("big", 3, 128, 128, ("a", "b"), (0.0,) * 3, (1.0,) * 3)
    source = MemoryImages(torch.zeros(2, 3, 128, 128, dtype=torch.uint8), torch.arange(2))
    with pytest.raises(DataError, match="lower the resolution"):
        whitened(Dataset(info, source, source))


def test_pixel_space_and_whitening_are_refused_together(cli_recipe_with_zca):
    with pytest.raises(IncompatibleError, match="does not go with"):
        cli_recipe_with_zca()


@pytest.fixture
def cli_recipe_with_zca(loaded):
    from ddkit.distillation.requirements import check_synthetic
    from ddkit.recipes.recipe import Recipe

    overrides = ["dataset.zca=true", "synthetic.space=pixel"]
    return lambda: check_synthetic(Recipe.load("dm-digits-ipc1", overrides))
