"""Built-in datasets that are downloaded, or shipped, on stand-ins in their own file formats."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from ddkit.data import Dataset, MemoryImages, statistics
from ddkit.errors import DataError
from ddkit_datasets.cifar import cifar10, cifar100
from ddkit_datasets.digits import digits
from ddkit_datasets.mnist import fashion_mnist, mnist
from ddkit_datasets.pixels import resized
from ddkit_datasets.svhn import svhn


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return md5(data)


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def images(data: Dataset) -> torch.Tensor:
    assert isinstance(data.train, MemoryImages)
    return data.train.images


# digits


def test_digits_need_no_network_and_have_a_fixed_stratified_split(tmp_path: Path) -> None:
    data = digits(tmp_path)
    assert data.info.shape == (1, 16, 16)
    assert data.info.classes == tuple("0123456789")
    assert len(data.train.labels) + len(data.test.labels) == 1797
    total = data.train.labels.bincount() + data.test.labels.bincount()
    assert torch.equal(data.test.labels.bincount(), total // 5)
    assert data.fingerprint() == digits(tmp_path).fingerprint()
    assert (data.info.mean, data.info.std) == statistics(images(data))
    assert files(tmp_path) == []


def test_every_fifth_digit_of_a_class_is_a_test_image(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = digits(tmp_path, resolution=8)
    whole = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    for label in (0, 7):
        mine = whole[torch.from_numpy(bunch.target) == label]
        test = data.test.fetch((data.test.labels == label).nonzero()[:, 0])
        assert torch.equal(test[:, 0], mine[4::5])


def test_digits_use_the_whole_range_at_any_resolution(tmp_path: Path) -> None:
    for resolution in (8, 16, 32):
        x = images(digits(tmp_path, resolution))
        assert x.shape == (1442, 1, resolution, resolution)
        assert (x.min(), x.max()) == (0, 255)


def test_resizing_does_not_depend_on_the_number_of_images() -> None:
    x = torch.from_numpy(noise(2050, 1, 8, 8))
    assert torch.equal(resized(x, 11)[2049:], resized(x[2049:], 11))
    assert torch.equal(resized(x, 8), x)


# CIFAR


def cifar_batches(kind: str) -> dict[str, bytes]:
    """Return the files of a small CIFAR by name, in the published format."""
    key, names_key, count = {
        "CIFAR10": ("labels", "label_names", 10),
        "CIFAR100": ("fine_labels", "fine_label_names", 100),
    }[kind]
    cls = getattr(torchvision.datasets, kind)
    made = {}
    for seed, (name, _) in enumerate(cls.train_list + cls.test_list):
        labels = [i % count for i in range(count)]
        made[name] = pickle.dumps({"data": noise(count, 3072, seed=seed), key: labels})
    made[cls.meta["filename"]] = pickle.dumps({names_key: [f"class {i}" for i in range(count)]})
    return made


def publish_cifar(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], bytes]:
    """Make a small CIFAR the published one; return its files and its archive."""
    cls = getattr(torchvision.datasets, kind)
    made = cifar_batches(kind)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in made.items():
            entry = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5(made[name])] for name, _ in getattr(cls, attribute)]
        monkeypatch.setattr(cls, attribute, listed)
    meta = {**cls.meta, "md5": md5(made[cls.meta["filename"]])}
    monkeypatch.setattr(cls, "meta", meta)
    monkeypatch.setattr(cls, "tgz_md5", md5(buffer.getvalue()))
    return made, buffer.getvalue()


@pytest.mark.parametrize("kind, factory", [("CIFAR10", cifar10), ("CIFAR100", cifar100)])
def test_cifar_is_read_from_its_batches(
    kind: str, factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = publish_cifar(kind, monkeypatch)
    folder = tmp_path / getattr(torchvision.datasets, kind).base_folder
    for name, data in made.items():
        write(folder / name, data)
    read = factory(tmp_path)
    count = 10 if kind == "CIFAR10" else 100
    assert read.info.shape == (3, 32, 32)
    assert read.info.classes[:2] == ("class 0", "class 1")
    assert read.info.num_classes == count
    assert len(read.test.labels) == count
    first = noise(count, 3072, seed=0)[1].reshape(3, 32, 32)
    assert np.array_equal(images(read)[1], first)
    assert factory(tmp_path, resolution=16).info.shape == (3, 16, 16)
    assert images(factory(tmp_path, resolution=16)).shape[2:] == (16, 16)


def test_cifar100_may_be_normalised_as_cifar10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, archive = publish_cifar("CIFAR100", monkeypatch)
    write(tmp_path / "cifar-100-python.tar.gz", archive)
    assert cifar100(tmp_path).info.mean == (0.5071, 0.4866, 0.4409)
    assert cifar100(tmp_path, statistics="cifar10").info.mean == (0.4914, 0.4822, 0.4465)


def test_an_archive_in_the_data_folder_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, archive = publish_cifar("CIFAR10", monkeypatch)
    write(tmp_path / "cifar-10-python.tar.gz", archive)
    assert len(cifar10(tmp_path).train.labels) == 50
    expected = [f"cifar-10-batches-py/{name}" for name in made] + ["cifar-10-python.tar.gz"]
    assert files(tmp_path) == sorted(expected)


def test_what_is_absent_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, archive = publish_cifar("CIFAR10", monkeypatch)
    serve(archive, monkeypatch)
    assert len(cifar10(tmp_path / "new").train.labels) == 50
    assert files(tmp_path / "new") == sorted(f"cifar-10-batches-py/{name}" for name in made)


class Response(io.BytesIO):
    """What the standard library's urlopen returns, as far as torchvision looks at it."""

    url = None

    @property
    def length(self) -> int:
        return len(self.getvalue())


def serve(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(data))


def refusal(factory: Any, root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        factory(root, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert "http" not in message
    return message


ARCHIVES = [
    (cifar10, "cifar-10-python.tar.gz", "."),
    (cifar100, "cifar-100-python.tar.gz", "."),
    (mnist, "train-images-idx3-ubyte.gz", "MNIST/raw"),
    (fashion_mnist, "t10k-labels-idx1-ubyte.gz", "FashionMNIST/raw"),
    (svhn, "train_32x32.mat, test_32x32.mat", "."),
]


@pytest.mark.parametrize("factory, names, folder", ARCHIVES)
def test_without_network_it_is_said_what_to_put_where(
    factory: Any, names: str, folder: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    message = refusal(factory, root)
    assert "cannot be downloaded: no answer from the network" in message
    assert names in message
    assert message.endswith(f"put it into {root / folder}" if "," not in names else str(root))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("factory, names, folder", ARCHIVES)
def test_a_download_of_the_wrong_content_is_refused_and_not_kept(
    factory: Any, names: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(b"a login page", monkeypatch)
    message = refusal(factory, tmp_path)
    assert "arrived damaged or is another file" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factory, names, folder", ARCHIVES)
def test_an_archive_of_the_wrong_content_is_refused_by_name_and_kept(
    factory: Any, names: str, folder: str, tmp_path: Path
) -> None:
    path = tmp_path / folder / names.split(",")[0]
    write(path, b"something else")
    message = refusal(factory, tmp_path)
    assert message.startswith(f"{path}: is not the published file")
    assert path.read_bytes() == b"something else"
    assert len(files(tmp_path)) == 1


def test_a_damaged_batch_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = publish_cifar("CIFAR10", monkeypatch)
    for name, data in made.items():
        write(tmp_path / "cifar-10-batches-py" / name, data)
    path = tmp_path / "cifar-10-batches-py/data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(cifar10, tmp_path).startswith(f"{path}: is not the published file")


def test_a_full_disk_is_not_taken_for_a_missing_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    assert "cannot be stored there: No space left on device" in refusal(cifar10, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "CIFAR10 cannot be stored there" in refusal(cifar10, tmp_path / "file" / "data")


# MNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": idx(noise(20, 28, 28)),
        "train-labels-idx1-ubyte": idx(np.arange(20, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte": idx(noise(10, 28, 28, seed=1)),
        "t10k-labels-idx1-ubyte": idx(np.arange(10, dtype=np.uint8)),
    }


@pytest.mark.parametrize("kind, factory", [("MNIST", mnist), ("FashionMNIST", fashion_mnist)])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_read_packed_or_unpacked(
    kind: str, factory: Any, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = []
    for name, data in mnist_files().items():
        if packed:
            path = tmp_path / kind / "raw" / f"{name}.gz"
            resources.append((path.name, write(path, gzip.compress(data))))
        else:
            write(tmp_path / kind / "raw" / name, data)
            resources.append((f"{name}.gz", "0"))
    monkeypatch.setattr(getattr(torchvision.datasets, kind), "resources", resources)
    read = factory(tmp_path)
    assert read.info.shape == (1, 28, 28)
    assert np.array_equal(images(read)[:, 0], noise(20, 28, 28))
    assert read.test.labels.tolist() == list(range(10))
    assert images(factory(tmp_path, resolution=32)).shape == (20, 1, 32, 32)
    assert not any("/" in name for name in read.info.classes)


def test_unpacked_mnist_files_that_are_not_idx_are_refused(tmp_path: Path) -> None:
    for name in mnist_files():
        write(tmp_path / "MNIST/raw" / name, b"nothing of the kind")
    assert f"{tmp_path / 'MNIST/raw'}: cannot be read as MNIST" in refusal(mnist, tmp_path)


# SVHN


def test_svhn_is_read_from_its_matlab_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.io import savemat

    split_list = {}
    for split, count in (("train", 12), ("test", 10)):
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10 + 1  # 10 stands for the digit 0
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": noise(32, 32, 3, count), "y": labels})
        split_list[split] = ["", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)
    data = svhn(tmp_path)
    assert data.info.shape == (3, 32, 32)
    assert data.train.labels.bincount().tolist() == [1, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert np.array_equal(images(data)[3], noise(32, 32, 3, 12)[..., 3].transpose(2, 0, 1))
    assert images(svhn(tmp_path, resolution=8)).shape == (12, 3, 8, 8)


# torchvision


@pytest.mark.parametrize("broken", [ImportError("no torchvision"), RuntimeError("nms\nmore")])
def test_a_torchvision_that_does_not_import_is_said_in_words(
    broken: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name.startswith("torchvision"):
            raise broken
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    message = refusal(svhn, tmp_path)
    assert "SVHN is read by torchvision, which does not import" in message
