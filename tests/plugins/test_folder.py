"""The folder dataset: layouts, forms, the cache, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddkit.data import Dataset, MemoryImages
from ddkit.errors import DataError, RecipeError
from ddkit.recipes.binding import schema
from ddkit.runtime.storage import cache
from ddkit_datasets import image_cache, image_decode
from ddkit_datasets.folder import folder


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "home"))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    """Write noise of (width, height) to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    Image.fromarray(noise.squeeze(-1) if bands == 1 else noise, mode=None).convert(mode).save(path)


def tree(base: Path, counts: dict[str, int], **kind: object) -> Path:
    """Write ``base/<key>/<i>.png`` for every key and count."""
    for place, count in counts.items():
        for i in range(count):
            picture(base / place / f"{i:02}.png", seed=hash_of(place) + i, **kind)  # type: ignore[arg-type]
    return base


def hash_of(text: str) -> int:
    return sum(map(ord, text)) * 100


def split_tree(base: Path, test: str = "test", **kind: object) -> Path:
    return tree(base, {"train/cat": 4, "train/dog": 3, f"{test}/cat": 2, f"{test}/dog": 1}, **kind)


def open_(path: Path, **options: object) -> Dataset:
    return folder(Path("unused"), path, **options)  # type: ignore[arg-type]


def pixels(data: Dataset) -> torch.Tensor:
    assert isinstance(data.train, MemoryImages)
    return data.train.images


def cached() -> list[Path]:
    return list(cache("images").iterdir()) if cache("images").exists() else []


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_with_test_or_val_are_the_splits(tmp_path: Path, test: str) -> None:
    data = open_(split_tree(tmp_path / "pets", test))
    assert data.info.name == "pets"
    assert data.info.classes == ("cat", "dog")
    assert data.info.shape == (3, 8, 8)
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1]
    first = np.asarray(Image.open(tmp_path / "pets/train/cat/00.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.fetch(torch.tensor([0]))[0], first)


def test_test_goes_before_val(tmp_path: Path) -> None:
    split_tree(tmp_path / "pets", "val")
    tree(tmp_path / "pets", {"test/cat": 5, "test/dog": 5})
    assert len(open_(tmp_path / "pets").test.labels) == 10


def test_class_folders_alone_are_split_by_name_the_same_each_time(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"cat": 10, "dog": 2, "ant": 7})
    data = open_(base)
    assert data.info.classes == ("ant", "cat", "dog")
    assert data.train.labels.bincount().tolist() == [5, 8, 1]
    assert data.test.labels.bincount().tolist() == [2, 2, 1]
    assert torch.equal(pixels(data), pixels(open_(base)))
    assert open_(base, test_every=2).test.labels.bincount().tolist() == [3, 5, 1]


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    data = open_(tree(tmp_path / "vehicles", {"train": 3, "truck": 3}))
    assert data.info.classes == ("train", "truck")


def test_statistics_are_of_the_training_images_unless_given(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    data = open_(base)
    x = pixels(data).double() / 255
    assert data.info.mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert data.info.std == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    given = open_(base, mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    assert (given.info.mean, given.info.std) == ((0.5,) * 3, (0.2,) * 3)


def test_statistics_need_one_value_per_channel(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"dataset\.std: must be 3 numbers, one per channel"):
        open_(split_tree(tmp_path / "pets"), std=[0.2])


def test_a_constant_channel_does_not_divide_by_zero(tmp_path: Path) -> None:
    for place in ("a", "b"):
        for i in range(3):
            path = tmp_path / "flat" / place / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 7).save(path)
    assert open_(tmp_path / "flat").info.std == (1.0,)


def test_grey_images_have_one_channel_and_colour_ones_three(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "grey", mode="L")
    grey = open_(base)
    assert grey.info.shape == (1, 8, 8)
    assert len(grey.info.mean) == 1
    assert open_(base, channels=3).info.shape == (3, 8, 8)
    picture(base / "test/cat/colour.png")
    assert open_(base).info.shape == (3, 8, 8)
    assert open_(base, channels=1).info.shape == (1, 8, 8)


def test_equal_images_that_are_not_square_are_kept(tmp_path: Path) -> None:
    data = open_(split_tree(tmp_path / "wide", size=(12, 6)))
    assert data.info.shape == (3, 6, 12)
    assert data.train.fetch(torch.tensor([1])).shape == (1, 3, 6, 12)


def test_resolution_resizes_the_shorter_side_and_keeps_the_centre(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "mixed", size=(12, 6))
    picture(base / "train/dog/tall.png", size=(5, 9))
    data = open_(base, resolution=6)
    assert data.info.shape == (3, 6, 6)
    whole = np.asarray(Image.open(base / "train/cat/00.png")).transpose(2, 0, 1)
    assert np.array_equal(pixels(data)[0], whole[:, :, 3:9])
    assert open_(base, resolution=16).info.shape == (3, 16, 16)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets", size=(4, 8))
    image = Image.open(base / "train/cat/00.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to show it
    image.rotate(90, expand=True).save(base / "train/cat/00.png", exif=exif)
    assert np.array_equal(pixels(open_(base))[0], np.asarray(image).transpose(2, 0, 1))


def test_hidden_files_and_file_managers_litter_are_ignored(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    (base / "train/cat/.DS_Store").write_bytes(b"x")
    (base / "train/dog/Thumbs.db").write_bytes(b"x")
    (base / ".git").mkdir()
    (base / "train/.ipynb_checkpoints").mkdir()
    (base / "README.txt").write_text("pets")
    assert len(open_(base).train.labels) == 7


LITTER = (
    *("@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"),
    *(".ipynb_checkpoints", ".Trash-1000", "#recycle", "@Recycle"),
)


def test_folders_of_systems_are_no_classes_and_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tree(tmp_path / "pets", {"cat": 3, "dog": 3, **dict.fromkeys(LITTER, 3)})
    for name in ("cat/._00.png", "dog/._00.png", "dog/THUMBS.DB", "cat/desktop.ini"):
        (base / name).write_bytes(b"x")
    assert open_(base).info.classes == ("cat", "dog")
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"{base}: {len(LITTER) + 4} entries are ignored, hidden files or what")
    assert "._00.png (2 times)" in said


def test_what_lies_beside_classes_and_splits_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tree(split_tree(tmp_path / "pets"), {"val/cat": 1, "val/dog": 1})
    (base / "README.txt").write_text("pets")
    picture(base / "train/stray.png")
    open_(base)
    (record,) = caplog.records
    assert "3 entries are ignored, beside what is read" in record.getMessage()
    assert all(name in record.getMessage() for name in ("README.txt", "stray.png", "val"))


def test_nothing_is_said_where_nothing_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_(split_tree(tmp_path / "pets"))
    open_(tree(tmp_path / "plain", {"cat": 3, "dog": 3}))
    assert not caplog.records


@pytest.mark.parametrize(
    "train, test",
    [("Train", "Test"), ("train", "valid"), ("TRAIN", "Validation"), ("training", "testing")],
)
def test_splits_are_known_by_their_usual_names_in_any_case(
    tmp_path: Path, train: str, test: str
) -> None:
    places = {f"{train}/cat": 4, f"{train}/dog": 3, f"{test}/cat": 2, f"{test}/dog": 1}
    data = open_(tree(tmp_path / "pets", places))
    assert data.info.classes == ("cat", "dog")
    assert (len(data.train.labels), len(data.test.labels)) == (7, 3)


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    base = tree(split_tree(tmp_path / "pets", "val"), {"valid/cat": 1, "valid/dog": 1})
    assert "has val/ and valid/, which mean the same split" in refusal(base)


def test_class_names_are_the_same_in_every_unicode_form(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    places = {f"train/{composed}": 2, "train/zoo": 2, f"test/{apart}": 1, "test/zoo": 1}
    data = open_(tree(tmp_path / "split", places))
    assert data.info.classes == (composed, "zoo")
    assert data.test.labels.tolist() == [0, 1]
    base = tree(tmp_path / "twins", {composed: 2, apart: 2})
    with pytest.raises(DataError, match="in different Unicode forms"):
        open_(base)


def test_cached_images_equal_decoded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = split_tree(tmp_path / "pets")
    fresh = open_(base)
    assert len(cached()) == 1

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_cache, "decode", fail)
    again = open_(base)
    assert torch.equal(pixels(fresh), pixels(again))
    assert fresh.info == again.info
    assert fresh.fingerprint() == again.fingerprint()
    assert torch.equal(fresh.test.labels, again.test.labels)


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    before = open_(base)
    path = base / "train/cat/00.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    after = open_(base)
    assert after.fingerprint() != before.fingerprint()
    assert pixels(after)[0, :, 0, 0].tolist() == [1, 2, 3]


def test_time_of_change_name_and_options_are_part_of_the_key(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    open_(base)
    os.utime(base / "train/cat/00.png", ns=(1, 1))
    open_(base)
    (base / "train/cat/00.png").rename(base / "train/cat/zz.png")
    open_(base)
    open_(base, resolution=4)
    open_(base, channels=1)
    assert len(cached()) == 5


def test_a_copy_of_a_folder_does_not_share_its_cache(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    open_(base)
    shutil.copytree(base, tmp_path / "other" / "pets")
    open_(tmp_path / "other" / "pets")
    assert len(cached()) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    base = split_tree(tmp_path / "pets")
    fresh = open_(base)
    expected = pixels(fresh).clone()
    (path,) = cached()
    whole = path.read_bytes()
    path.unlink()  # the first data set is still mapped from it
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert torch.equal(pixels(open_(base)), expected)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_not_stop_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "file"))
    assert len(open_(split_tree(tmp_path / "pets")).train.labels) == 7
    assert "will be decoded again" in caplog.text


def put(path: Path, colour: tuple[int, int, int]) -> None:
    """Write a picture of one size in bytes and one time of change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    os.utime(path, (315532800, 315532800))


@pytest.mark.parametrize("by_name", [False, True])
def test_a_file_replaced_within_its_size_and_time_of_change_is_decoded_again(
    tmp_path: Path, by_name: bool
) -> None:
    base = tmp_path / "flat"
    for i in range(8):
        put(base / "ab"[i % 2] / f"{i}.bmp", (10 * i, 0, 0))
    open_(base)
    put(tmp_path / "new.bmp", (1, 2, 3))
    if by_name:
        (tmp_path / "new.bmp").replace(base / "a/0.bmp")
    else:
        put(base / "a/0.bmp", (1, 2, 3))
    assert pixels(open_(base))[0, :, 0, 0].tolist() == [1, 2, 3]


def test_path_is_the_only_option_that_must_be_given() -> None:
    options = schema(folder)
    assert [name for name, o in options.items() if o.required] == ["root", "path"]


def refusal(base: Path, **options: object) -> str:
    """Return the message with which `base` is refused; it leaves nothing behind."""
    with pytest.raises(DataError) as caught:
        open_(base, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert cached() == []
    return message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "pets")
    assert f"{tmp_path / 'pets'}: there is no such folder" in message
    assert "train/ and test/, or class folders" in message
    (tmp_path / "pets").write_text("")
    assert "is not a folder" in refusal(tmp_path / "pets")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "pets/cat.png")
    assert "neither train/ nor class folders" in refusal(tmp_path / "pets")


def test_train_without_test_is_refused(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"train/cat": 2, "train/dog": 2})
    assert "has train/ but neither test/ nor val/" in refusal(base)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    for path in (base / "train/ant", base / "test/ant"):
        path.mkdir()
        (path / ".DS_Store").write_bytes(b"x")
    assert f"{base / 'train/ant'}: the class folder is empty" in refusal(base)


def test_a_class_in_one_split_only_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    tree(base, {"train/ant": 1})
    assert "classes in train/ but not in test/: ant" in refusal(base)
    tree(base, {"test/ant": 1, "test/bee": 1})
    assert "classes in test/ but not in train/: bee" in refusal(base)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    assert "has one class only, 'cat'" in refusal(tree(tmp_path / "pets", {"cat": 3}))
    base = tree(tmp_path / "split", {"train/cat": 3, "test/cat": 1})
    assert "has one class only, 'cat'" in refusal(base)


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"cat": 3, "dog": 1})
    assert f"{base / 'dog'}: holds one image only" in refusal(base)


def test_a_file_that_is_not_an_image_is_refused_by_name_and_count(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    (base / "train/dog/notes.txt").write_text("not an image")
    message = refusal(base)
    assert message.startswith(f"{base / 'train/dog/notes.txt'}: is not an image")
    (base / "train/cat/empty.png").write_bytes(b"")
    message = refusal(base)
    assert message.startswith(f"{base / 'train/cat/empty.png'}: is not an image")
    assert "(2 such files)" in message


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    path = base / "test/cat/photo.jpg"
    picture(path, size=(8, 8))
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{path}: is damaged" in refusal(base)


def test_a_folder_of_damaged_images_only_is_refused(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        path = tmp_path / "bad" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad")
    assert "(4 such files)" in refusal(tmp_path / "bad")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    (base / "train/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert f"{base / 'train/cat/gone.png'}: cannot be read" in refusal(base)


def test_links_that_cannot_be_followed_beside_class_folders_are_refused(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"cat": 2, "dog": 2})
    (base / "loop").symlink_to("loop")
    assert f"{base / 'loop'}: cannot be read: its links lead in a circle" in refusal(base)
    (base / "loop").unlink()
    (base / "ant").symlink_to(tmp_path / "unmounted")  # else its class would be missing unsaid
    assert f"{base / 'ant'}: cannot be read: it is a link to nowhere" in refusal(base)
    (base / "ant").unlink()
    (tmp_path / "ring").symlink_to("ring")
    assert "cannot be looked at: its links lead in a circle" in refusal(tmp_path / "ring")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_where_reading_it_would_wait_for_ever(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"cat": 2, "dog": 2})
    os.mkfifo(base / "cat/pipe.png")
    assert f"{base / 'cat/pipe.png'}: is not a file" in refusal(base)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_class_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    base = tree(tmp_path / "pets", {"cat": 2, "dog": 2})
    try:
        os.mkdir(os.fsencode(base) + b"/caf\xe9")  # noqa: PTH102 - bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    message = refusal(base)
    assert "the name of a class folder: 'caf\\udce9' is not text" in message
    message.encode()


def test_a_folder_in_a_class_folder_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    tree(base, {"train/cat/old": 1})
    assert f"{base / 'train/cat/old'}: a folder inside the class folder" in refusal(base)


def test_images_of_several_sizes_need_a_resolution(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    picture(base / "test/cat/large.png", size=(9, 10))
    message = refusal(base)
    assert f"{base / 'test/cat/large.png'}: is 9x10, others are 8x8" in message
    assert "give dataset.resolution" in message


def test_more_than_three_channels_are_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    picture(base / "train/cat/deep.tif", mode="CMYK")
    assert f"{base / 'train/cat/deep.tif'}: has 4 channels (CMYK)" in refusal(base)


def test_transparent_pixels_are_refused_by_name_and_count(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets")
    for name in ("train/cat/clear.png", "test/dog/clear.png"):
        picture(base / name, mode="RGBA")
    message = refusal(base)
    assert message.startswith(f"{base / 'train/cat/clear.png'}: has transparent pixels (6")
    assert "paint it over a background" in message and "(2 such files)" in message


def test_a_picture_too_narrow_to_be_made_square_is_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets", mode="L")
    picture(base / "train/cat/line.png", size=(1, 20000), mode="L")
    message = refusal(base, resolution=128)
    assert f"{base / 'train/cat/line.png'}: is 1x20000, too narrow" in message


def test_images_that_do_not_fit_memory_are_refused_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    base = split_tree(tmp_path / "pets")
    monkeypatch.setattr(image_decode.np, "empty", refuse)
    assert "10 images of 8x8 with 3 channels take 0.0 GB" in refusal(base)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    base = split_tree(tmp_path / "pets", mode="L")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(base / "train/cat/deep.png")
    assert "convert it to 8-bit grey or RGB" in refusal(base)


def test_published_sets_are_converted_whatever_their_mode(tmp_path: Path) -> None:
    picture(tmp_path / "a.tif", mode="CMYK")
    form = image_decode.Form(4, 3, published=True)
    assert image_decode.decode([str(tmp_path / "a.tif")], form).shape == (1, 3, 4, 4)


def test_resizing_equals_torchvisions(tmp_path: Path) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    for size in ((50, 37), (37, 50), (41, 41), (20, 31), (16, 16)):
        picture(tmp_path / "a.png", size=size)
        ours = image_decode.decode([str(tmp_path / "a.png")], image_decode.Form(16, 3, True, 18))
        theirs = Compose([Resize(18), CenterCrop(16)])(Image.open(tmp_path / "a.png"))
        assert np.array_equal(ours[0], np.asarray(theirs).transpose(2, 0, 1)), size
