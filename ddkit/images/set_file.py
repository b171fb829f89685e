"""The file of a set: written whole; read as a stranger's, checked before memory is taken."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddkit.data import DataInfo
from ddkit.errors import CheckpointError, RecipeError, near, shown
from ddkit.images.formation import Formation
from ddkit.options import Count, Range
from ddkit.recipes.binding import checked, convert, schema
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import as_table
from ddkit.runtime.storage import write_atomically

FORMAT = 1
KEY = "ddkit"
FIELDS = ("info", "formation", "space", "recipe", "provenance")
Space = Literal["normalized", "pixel"]

HEADER = 4 << 20  # bytes; the names of 20,000 classes and a recipe take less than one MiB
LONGEST_NAME = 500
DEEPEST = 16  # tables within tables of a recipe; ours have four
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
INTEGERS = ("I64", "I32", "I16", "I8", "U8")
TOLERANCE = 0.01  # of the sum of probabilities, which bfloat16 rounds


@dataclass(frozen=True)
class Description:
    """What a set's file says of its tensors; `info` is without the whitening, which is tensors."""

    info: DataInfo
    formation: Formation
    space: Space
    recipe: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Info:
    """The types and ranges of a `DataInfo` as a file has it."""

    name: str
    channels: Count
    height: Count
    width: Count
    classes: tuple[str, ...]
    mean: tuple[Annotated[float, Range(min=-1e6, max=1e6)], ...]
    std: tuple[Annotated[float, Range(min=1e-30)], ...]  # what float32 can divide by


def write(path: Path, described: Description, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; the same set gives the same bytes.

    Raises:
        CheckpointError: the place cannot be written to.
    """
    table = {
        "format": FORMAT,
        "info": described.info.to_dict(),
        "formation": asdict(described.formation),
        "space": described.space,
        "recipe": described.recipe,
        "provenance": described.provenance,
    }
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {KEY: json.dumps(table)}
    write_atomically(path, lambda p: save_file(held, p, metadata))


def read(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Return what the file says and its tensors: ``labels`` int64, all others float32.

    Sizes and types are those that the description gives; every value is finite.

    Raises:
        CheckpointError: missing, truncated, not safetensors, or not a set of ddkit's.
    """
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            described = _described(file.metadata() or {}, set(file.keys()))
            held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            _check_shapes(held, described.info)
            unfit = described.formation.unfit(*described.info.shape[1:])
            if unfit:
                raise CheckpointError(f"its description: formation.factor: {unfit}")
            tensors = {name: _converted(name, file.get_tensor(name)) for name in held}
        wrong = problem(tensors, described.info)
        if wrong:
            raise CheckpointError(wrong)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {_unreadable(error)}") from None
    except (CheckpointError, RecipeError) as error:
        raise CheckpointError(f"{path}: {_brief(str(error))}") from None
    return described, tensors


def _check_header(path: Path) -> None:
    """Refuse what is no plain file, and descriptions longer than any set's."""
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise CheckpointError("no such file") from None
    if not plain:
        raise CheckpointError("not a file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if HEADER < length < path.stat().st_size:  # else safetensors has the word
            raise CheckpointError(f"its header takes {length:,} bytes, more than any set's")


def _unreadable(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror.lower()}"
    return f"not a readable safetensors file: {_brief(str(error))}"


def _brief(text: str, longest: int = 300) -> str:
    """Return the first line of a message, its characters shown, cut where it quotes at length."""
    line, *more = text.splitlines() or [""]
    line = shown(line if len(line) <= longest else line[:longest] + "…")
    return f"{line} (and {len(more)} more)" if more else line


def _described(metadata: Mapping[str, str], names: set[str]) -> Description:
    if KEY not in metadata or not {"images", "labels"} <= names:
        raise CheckpointError("a safetensors file, but not a set made by ddkit")
    try:
        value = json.loads(metadata[KEY], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the description in it is damaged: {error}") from None
    place = Place(Source("its description"))
    table = as_table(value, place)
    version = convert(table.pop("format", None), Count, place / "format")
    if version > FORMAT:
        raise CheckpointError(
            f"written in format {version}, newer than this ddkit reads ({FORMAT}); upgrade ddkit"
        )
    _check_keys(table, FIELDS, place)
    missing = set(FIELDS) - table.keys()
    if missing:
        raise CheckpointError(f"{place / min(missing)}: missing")
    info = _info(table["info"], place / "info")
    formation = _section(Formation, table["formation"], place / "formation")
    for name in ("recipe", "provenance"):
        _check_plain(as_table(table[name], place / name), place / name)
    space = convert(table["space"], Space, place / "space")
    return Description(info, formation, space, table["recipe"], table["provenance"])


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _info(value: Any, place: Place) -> DataInfo:
    table = _section(_Info, value, place)
    info = DataInfo(**vars(table))
    if len(info.mean) != info.channels or len(info.std) != info.channels:
        raise CheckpointError(f"{place}: mean and std must be {info.channels} numbers each")
    seen: set[str] = set()
    for name in info.classes:
        if name in seen:
            raise CheckpointError(f"{place / 'classes'}: two are called {name!r}")
        seen.add(name)
    if not info.classes or max(map(len, (info.name, *info.classes))) > LONGEST_NAME:
        raise CheckpointError(
            f"{place}: must name at least one class, in at most {LONGEST_NAME} characters each"
        )
    return info


def _section(spec: type[Any], value: Any, place: Place) -> Any:
    """Return `spec` made of the table `value`; of fields it does not know the first is named."""
    table = as_table(value, place)
    _check_keys(table, tuple(schema(spec)), place)
    return spec(**checked(spec, table, place))


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], place: Place) -> None:
    for name in table:
        if name not in known:
            raise CheckpointError(f"{place}: unknown field {name!r}{near(name, known)}")


def _check_plain(value: Any, place: Place, depth: int = 0) -> None:
    """Refuse what TOML does not hold or 64 bits do not, and tables without end."""
    if depth > DEEPEST:
        raise CheckpointError(f"{place}: tables within tables, more than {DEEPEST} deep")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_plain(item, place / name, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_plain(item, place / str(number), depth + 1)
    elif value is None:
        raise CheckpointError(f"{place}: must be a value, not null")
    else:
        convert(value, type(value), place)


def _check_shapes(held: Mapping[str, Any], info: DataInfo) -> None:
    """Compare the header's sizes and types of tensors, not loaded yet, with the description."""
    labels, values = held["labels"].get_shape(), math.prod(info.shape)
    if len(labels) != 1 or not labels[0]:
        raise CheckpointError(f"labels must be a number for each image, not of shape {labels}")
    wanted = {
        "images": [*labels, *info.shape],
        "labels": labels,
        "soft": [*labels, info.num_classes],
        "zca_mean": [values],
        "zca_matrix": [values, values],
    }
    for name, tensor in held.items():
        shape, kind = tensor.get_shape(), tensor.get_dtype()
        if name not in wanted:
            raise CheckpointError(f"unknown tensor {name!r}{near(name, wanted)}")
        if shape != wanted[name]:
            raise CheckpointError(f"{name} must be of shape {wanted[name]}, not {shape}")
        kinds = INTEGERS if name == "labels" else FLOATS
        if kind not in kinds:
            raise CheckpointError(f"{name} must be of type {' or '.join(kinds)}, not {kind}")
    if ("zca_mean" in held) != ("zca_matrix" in held):
        raise CheckpointError("zca_mean and zca_matrix go together; one is missing")


def _converted(name: str, tensor: Tensor) -> Tensor:
    return tensor.to(torch.int64 if name == "labels" else torch.float32, copy=True)


def problem(tensors: Mapping[str, Tensor], info: DataInfo) -> str | None:
    """Return what does not hold of the values of a set's tensors, named as in its file, or None."""
    labels = tensors["labels"]
    if labels.min() < 0 or labels.max() >= info.num_classes:
        return f"labels must be 0 to {info.num_classes - 1}"
    for name, tensor in tensors.items():
        broken = ~tensor.detach().isfinite().reshape(len(tensor), -1).all(1)
        if broken.any():
            first = int(broken.nonzero()[0])
            what = f"{int(broken.sum())} of {len(tensor)} rows (the first: {first})"
            return f"{name}: {what} hold values that are not finite numbers"
    return _no_probabilities(tensors["soft"]) if "soft" in tensors else None


def _no_probabilities(soft: Tensor) -> str | None:
    sums = soft.sum(1)
    wrong = (soft < -1e-6).any(1) | ((sums - 1).abs() > TOLERANCE)
    if not wrong.any():
        return None
    row = int(wrong.nonzero()[0])
    return (
        f"soft labels must be probabilities, at least 0 and of sum 1 in each row, but row {row} "
        f"has {float(soft[row].min()):.4g} to {float(soft[row].max()):.4g} and the sum "
        f"{float(sums[row]):.4g}; of logits, store the softmax"
    )
