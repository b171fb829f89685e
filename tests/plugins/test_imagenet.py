"""Tiny ImageNet, ImageNet and its subsets on small trees of their layouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddkit.data import DataInfo, MemoryImages
from ddkit.errors import DataError, RecipeError
from ddkit.runtime.storage import cache
from ddkit_datasets import image_content
from ddkit_datasets import imagenet as plugin
from ddkit_datasets.imagenet import imagefruit, imagenet, imagenette, imageyellow
from ddkit_datasets.imagenet_classes import SUBSETS, subset
from ddkit_datasets.tiny_imagenet import tiny_imagenet

TINY = ("n02000000", "n01000000", "n03000000")  # in the order of wnids.txt, not sorted


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "home"))


def picture(path: Path, grey: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (grey,) * len(mode) if len(mode) > 1 else grey).save(path, "JPEG")


def tiny(root: Path, deep: bool = True, val: str = "annotated") -> Path:
    """Write a Tiny ImageNet of three classes; pixels of class i of TINY are 10 i, +5 in val."""
    base = root / "tiny-imagenet-200"
    lines = []
    for i, wnid in enumerate(TINY):
        folder = base / "train" / wnid / ("images" if deep else "")
        for k in range(2):
            picture(folder / f"{wnid}_{k}.JPEG", 10 * i, mode="L" if k else "RGB")
        if deep:
            (folder.parent / f"{wnid}_boxes.txt").write_text("boxes")
        file = f"val_{2 - i}.JPEG"
        lines.append(f"{file}\t{wnid}\t0\t0\t9\t9\n")
        inner = {"annotated": "images", "sorted": wnid, "deep": f"{wnid}/images"}[val]
        picture(base / "val" / inner / file, 10 * i + 5)
    if val == "annotated":
        (base / "val/val_annotations.txt").write_text("".join(lines))
    (base / "wnids.txt").write_text("\n".join(TINY))
    (base / "words.txt").write_text("n01000000\tcrane, bird\nn02000000\tcrane\nn09\tother\n")
    return base


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("val", ["annotated", "sorted", "deep"])
def test_tiny_imagenet_is_read_in_any_of_its_layouts(tmp_path: Path, deep: bool, val: str) -> None:
    tiny(tmp_path, deep, val)
    data = tiny_imagenet(tmp_path)
    assert data.info.shape == (3, 64, 64)
    assert data.info.classes == ("crane (n01000000)", "crane (n02000000)", "n03000000")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    levels = [10, 0, 20]  # of TINY sorted
    assert data.train.fetch(torch.arange(0, 6, 2))[:, 0, 0, 0].tolist() == levels
    seen = data.test.fetch(torch.arange(3))[:, 0, 0, 0].tolist()
    assert seen == [levels[label] + 5 for label in data.test.labels.tolist()]


def test_tiny_imagenet_may_follow_the_order_of_its_list(tmp_path: Path) -> None:
    base = tiny(tmp_path)
    data = tiny_imagenet(Path("unused"), path=base, order="wnids", resolution=32)
    assert data.info.classes[0] == "crane (n02000000)"
    assert data.train.fetch(torch.arange(0, 6, 2))[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert data.info.shape == (3, 32, 32)


def test_tiny_imagenet_has_the_statistics_of_the_papers(tmp_path: Path) -> None:
    tiny(tmp_path)
    assert tiny_imagenet(tmp_path).info.std == (0.229, 0.224, 0.225)
    assert tiny_imagenet(tmp_path, statistics="own").info.std == (0.2770, 0.2691, 0.2821)
    assert tiny_imagenet(tmp_path, statistics="sre2l").info.mean == (0.4802, 0.4481, 0.3975)


def refusal(factory: Any, root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        factory(root, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert not cache("images").exists()
    return message


def test_a_missing_tiny_imagenet_is_refused_with_what_to_put_where(tmp_path: Path) -> None:
    message = refusal(tiny_imagenet, tmp_path)
    assert f"{tmp_path / 'tiny-imagenet-200'}: unpack the archive tiny-imagenet-200.zip" in message


def test_a_val_folder_without_annotations_is_refused_by_name(tmp_path: Path) -> None:
    annotations = tiny(tmp_path) / "val/val_annotations.txt"
    annotations.unlink()
    assert refusal(tiny_imagenet, tmp_path).startswith(f"{annotations}: is missing")


def test_annotations_that_do_not_fit_the_images_are_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path)
    annotations = base / "val/val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text + "val_9.JPEG\tn01000000\t0\t0\t9\t9\n")
    assert f"{base / 'val/images/val_9.JPEG'}: has a label but" in refusal(tiny_imagenet, tmp_path)
    annotations.write_text(text.splitlines(keepends=True)[0])
    assert f"{base / 'val/images/val_0.JPEG'}: has no label" in refusal(tiny_imagenet, tmp_path)
    annotations.write_text(text.replace("n03000000", "n04000000"))
    message = refusal(tiny_imagenet, tmp_path)
    assert f"{annotations}:3: 'n04000000' is not a class of train/" in message


def test_a_tiny_class_in_one_split_only_is_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path, val="sorted")
    picture(base / "val/n09000000/a.JPEG", 1)
    assert "the class n09000000 is in val/ only" in refusal(tiny_imagenet, tmp_path)


def test_a_list_that_differs_from_the_folders_is_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path)
    (base / "wnids.txt").write_text("n01000000\nn02000000\nn05000000\n")
    message = refusal(tiny_imagenet, tmp_path, order="wnids")
    assert f"{base / 'wnids.txt'}: differs from the folders of train/: n03000000" in message


def test_a_damaged_tiny_image_is_refused_by_name(tmp_path: Path) -> None:
    path = tiny(tmp_path) / "train/n01000000/images/n01000000_0.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    assert refusal(tiny_imagenet, tmp_path).startswith(f"{path}: is")


def folders(root: Path, wnids: tuple[str, ...], size: tuple[int, int] = (40, 30)) -> Path:
    """Write two training images and a validation image per class, grey 10 i and 10 i + 5."""
    for i, wnid in enumerate(wnids):
        for k in range(2):
            picture(root / "imagenet/train" / wnid / f"{wnid}_{k}.JPEG", 10 * i, size)
        picture(root / f"imagenet/val/{wnid}/{i}.JPEG", 10 * i + 5, size)
    return root / "imagenet"


@pytest.mark.parametrize("name", list(SUBSETS))
def test_subsets_are_labelled_in_the_order_of_their_lists(name: str, tmp_path: Path) -> None:
    wnids, classes = subset(name)
    folders(tmp_path, ("n00000001", *wnids))
    data = plugin.register_datasets()[name](tmp_path)
    assert data.info == DataInfo(
        name, 3, 128, 128, classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert len(set(wnids)) == len(set(classes)) == 10
    middle = data.train.fetch(torch.arange(0, 20, 2))[:, 0, 64, 64].tolist()
    assert middle == [10 * i for i in range(1, 11)]
    assert data.test.labels.tolist() == list(range(10))


def test_subsets_are_imagenets_own_classes() -> None:
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-1k")
    for name in SUBSETS:
        for variant in ("mtt", "ncfm"):
            for wnid, label in zip(*subset(name, variant), strict=True):
                said = known.label_name_to_description(wnid).lower().replace(",", "")
                assert set(label.lower().split()[:2]) <= set(said.split()), (wnid, label, said)


def test_two_subsets_have_the_variants_of_the_papers(tmp_path: Path) -> None:
    for factory, mtt, ncfm in (
        (imagefruit, "n07742313", "n07760859"),
        (imageyellow, "n01773157", "n01773797"),
    ):
        theirs, ours = subset(factory.__name__), subset(factory.__name__, "ncfm")
        assert (mtt in theirs[0], ncfm in theirs[0]) == (True, False)
        assert (mtt in ours[0], ncfm in ours[0]) == (False, True)
        assert sum(a != b for a, b in zip(theirs[0], ours[0], strict=True)) == 1
        folders(tmp_path, ours[0])
        assert factory(tmp_path, variant="ncfm", resolution=16).info.classes == ours[1]
        with pytest.raises(DataError, match=f"{mtt}: there is no such folder"):
            factory(tmp_path)


def test_missing_imagenet_folders_are_refused_with_what_to_put_where(tmp_path: Path) -> None:
    base = tmp_path / "imagenet"
    message = refusal(imagenette, tmp_path)
    assert f"imagenette is not at {base}: put the ImageNet-1k" in message
    assert "train/WNID/*.JPEG and val/WNID/*.JPEG" in message
    folders(tmp_path, subset("imagenette")[0][:8])
    message = refusal(imagenette, tmp_path)
    assert f"{base / 'train/n03445777'}: there is no such folder" in message
    assert "'golf ball' (2 of 10 missing)" in message


def test_a_val_folder_that_is_not_sorted_is_refused_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "imagenet/train/n01440764/a.JPEG", 1)
    picture(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG", 1)
    message = refusal(imagenet, tmp_path)
    assert f"{tmp_path / 'imagenet/val'}: holds no class folders; sort the images" in message


def test_an_empty_imagenet_class_is_refused(tmp_path: Path) -> None:
    base = folders(tmp_path, subset("imagenette")[0])
    path = base / "train/n03445777"
    for file in path.iterdir():
        file.unlink()
    assert f"{path}: the class folder is empty" in refusal(imagenette, tmp_path)


def test_imagenet_reads_whatever_classes_there_are(tmp_path: Path) -> None:
    base = folders(tmp_path, ("n01440764", "n02012849", "n03126707", "n99999999"))
    data = imagenet(Path("unused"), path=base, resolution=16)
    crane = ("crane (n02012849)", "crane (n03126707)")
    assert data.info.classes == ("tench", *crane, "n99999999")
    assert isinstance(data.train, MemoryImages)
    picture(base / "val/n05000000/a.JPEG", 1)
    with pytest.raises(DataError, match="the class n05000000 is in val/ only"):
        imagenet(tmp_path)


def test_what_memory_does_not_hold_is_decoded_from_disk_to_the_same(tmp_path: Path) -> None:
    base = folders(tmp_path, ("n01440764", "n02012849", "n03126707"), size=(48, 36))
    noise = np.random.default_rng(0).integers(0, 256, (50, 37, 3), np.uint8)
    Image.fromarray(noise).save(base / "train/n01440764/x.JPEG")
    memory = imagenet(tmp_path, resolution=16, resize=20)
    disk = imagenet(tmp_path, resolution=16, resize=20, memory_limit_gb=1e-6)
    assert not isinstance(disk.train, MemoryImages)
    assert torch.equal(disk.train.labels, memory.train.labels)
    for index in (torch.tensor([4, 2, 2]), torch.arange(7), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(disk.train.fetch(index), memory.train.fetch(index))
    moved = disk.train.to(torch.device("cpu"))
    assert moved.fingerprint() == disk.train.fingerprint()
    picture(base / "train/n01440764/y.JPEG", 3)
    again = imagenet(tmp_path, resolution=16, resize=20, memory_limit_gb=1e-6)
    assert again.fingerprint() != disk.fingerprint()


def test_a_damaged_file_on_disk_is_named_when_it_is_fetched(tmp_path: Path) -> None:
    base = folders(tmp_path, ("n01440764", "n02012849"))
    (base / "train/n01440764/n01440764_1.JPEG").write_bytes(b"x")
    data = imagenet(tmp_path, resolution=16, memory_limit_gb=1e-6)
    with pytest.raises(DataError, match=r"n01440764_1\.JPEG: is not an image"):
        data.train.fetch(torch.arange(3))


def test_images_on_disk_are_known_by_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = folders(tmp_path, subset("imagenette")[0])
    path = base / "train/n01440764/n01440764_1.JPEG"

    def fingerprint() -> str:
        return imagenet(tmp_path, resolution=16, memory_limit_gb=1e-6).fingerprint()

    first, whole, changed = fingerprint(), path.read_bytes(), path.stat()
    os.utime(path, (1, 1))
    assert fingerprint() == first  # another time, the same bytes
    path.write_bytes(whole[:-1] + b"x")
    os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert fingerprint() != first  # another byte, the same size and time
    path.write_bytes(whole)
    assert fingerprint() == first
    monkeypatch.setattr(image_content, "_hash", None)  # known by now, and not read again
    assert fingerprint() == first


def test_resize_is_not_below_resolution(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"dataset\.resize: must be at least"):
        imagenet(tmp_path, resolution=224, resize=128)
