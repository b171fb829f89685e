"""What the fuzzer draws: one strategy for each target, of plain data that Python can read back."""

from __future__ import annotations

from typing import Any

import tomli_w
from hypothesis import strategies as st
from odd import (
    KEYS,
    PARTS,
    RECIPES,
    SECTIONS,
    TOML,
    json_values,
    names,
    scalars,
    whole_names,
)

_keys = st.sampled_from(KEYS) | st.sampled_from(SECTIONS) | whole_names
_values = st.sampled_from(TOML) | st.sampled_from([f'"{p}"' for p in PARTS]) | st.text(max_size=12)
_tokens = st.sampled_from(
    ["=", "[", "]", "[[", "{", "}", '"', "'''", "\\", "#", ".", ",", "\n", "\r", "\0", "\x1b[31m"]
)


@st.composite
def _edited(draw: st.DrawFn) -> str:
    """A shipped recipe after a few edits of its lines."""
    lines = RECIPES[draw(st.sampled_from(sorted(RECIPES)))].split("\n")
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        match draw(st.sampled_from(["value", "key", "drop", "twice", "token", "line", "table"])):
            case "value":
                lines[at] = f"{line.partition('=')[0]}= {draw(_values)}"
            case "key":
                lines[at] = f"{draw(_keys)} ={line.partition('=')[2]}"
            case "drop":
                lines[at] = ""
            case "twice":
                lines.insert(at, line)
            case "token":
                cut = draw(st.integers(0, len(line)))
                lines[at] = line[:cut] + draw(_tokens) + line[cut:]
            case "line":
                lines.insert(at, f"{draw(_keys)} = {draw(_values)}")
            case "table":
                lines.insert(at, f"[{draw(_keys)}]")
    return "\n".join(lines)


_toml = st.recursive(
    scalars.filter(lambda v: v is not None) | st.dates() | st.times() | st.sampled_from(PARTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)
_tables = st.dictionaries(_keys, _toml, max_size=6).map(
    lambda extra: tomli_w.dumps({"dataset": "digits", "backbone": "mlp", "method": "dm"} | extra)
)
_depths = st.sampled_from([5, 31, 33, 100, 900, 5000])
_deep = st.builds(
    lambda key, n, form: (
        f"{key} = {'[' * n}1{']' * n}\n"
        if form == "lists"
        else f"{'.'.join([key] * n)} = 1\n"
        if form == "keys"
        else f"[{'.'.join([key] * n)}]\n{key * n} = 1\n"
    ),
    st.sampled_from(["a", "eval", "dataset", "method"]),
    _depths,
    st.sampled_from(["lists", "keys", "tables"]),
)
_codings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "cp037"])


def recipes() -> st.SearchStrategy[bytes]:
    """The bytes of a recipe file."""
    text = st.one_of(_edited(), _edited(), _tables, _deep)
    coded = st.builds(lambda t, c: t.encode(c, "replace"), text, _codings)
    plain = text.map(lambda t: t.encode("utf-8", "replace"))
    return st.one_of(plain, plain, plain, coded, st.binary(max_size=60))


def overrides() -> st.SearchStrategy[tuple[str, list[str]]]:
    """A shipped recipe by name, or by none, and what ``--set`` is given."""
    step = st.sampled_from([*KEYS, *SECTIONS, "name", "0", "1", "-1", "9" * 12, "²", "x" * 500, ""])
    path = st.lists(step | names, min_size=1, max_size=4).map(".".join)
    item = st.builds(lambda p, e, v: p + e + v, path, st.sampled_from(["=", " = "]), _values)
    long = st.builds(lambda p, n, v: ".".join([p] * n) + "=" + v, step, _depths, _values)
    items = st.lists(st.one_of(item, item, item, long, names), max_size=3)
    known = st.sampled_from(sorted(RECIPES))
    return st.tuples(st.one_of(known, known, known, known, names), items)


_FIELDS = (
    *(("format",), ("info",), ("formation",), ("space",), ("recipe",), ("provenance",)),
    *(("info", key) for key in ("name", "channels", "height", "width", "classes", "mean", "std")),
    *(("formation", key) for key in ("factor", "order", "init_resize", "kind", "bound", "new")),
    *(("recipe", "eval"), ("recipe", "x"), ("provenance", "seed"), ("provenance", "\x1b[31m")),
)
_TENSORS = ("images", "labels", "soft", "zca_mean", "zca_matrix", "other", "__metadata__")
_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "U8", "BOOL", "C64", "nonsense")


def sets() -> st.SearchStrategy[dict[str, Any]]:
    """A good set's kind, and what is done to its description, header and bytes."""
    classes = st.lists(whole_names, min_size=2, max_size=2)
    described = st.one_of(
        st.tuples(st.sampled_from(_FIELDS), json_values),
        st.tuples(st.just(("info", "classes")), classes),
        st.tuples(st.just(("info", "name")), whole_names),
        st.tuples(st.just(("provenance", "by")), json_values),
        st.tuples(st.just(("recipe",)), st.dictionaries(whole_names, json_values, max_size=3)),
    )
    shapes = st.lists(st.sampled_from([0, 1, 2, 4, 16, 2**31, 2**62]), max_size=5)
    header = st.one_of(
        st.tuples(st.sampled_from(_TENSORS), st.just("dtype"), st.sampled_from(_TYPES)),
        st.tuples(st.sampled_from(_TENSORS), st.just("shape"), shapes | json_values),
        st.tuples(st.sampled_from(_TENSORS), st.just("data_offsets"), shapes | json_values),
        st.tuples(st.sampled_from(_TENSORS), st.just(""), json_values),
    )
    whole = st.integers(0, 999)
    changes = {
        "described": st.lists(described, min_size=1, max_size=2),
        "text": st.sampled_from(["", "null", "{", "[]", "NaN", '{"a":' * 3000, "9" * 5000]),
        "header": st.lists(header, min_size=1, max_size=2),
        "cut": whole,
        "flips": st.lists(st.tuples(whole, st.integers(1, 255)), min_size=1, max_size=4),
        "values": st.lists(st.tuples(whole, st.integers(0, 255)), min_size=1, max_size=4),
        "length": st.sampled_from([0, 1, 7, 2**16, 2**22, 2**31, 2**63, 2**64 - 1]),
        "tail": st.binary(min_size=1, max_size=9),
    }
    kinds = st.sampled_from(["plain", "soft", "zca", "mosaic"])
    one = st.one_of([st.fixed_dictionaries({"kind": kinds, k: v}) for k, v in changes.items()])
    more = st.fixed_dictionaries(
        {"kind": kinds}, optional={k: changes[k] for k in ("described", "header", "flips")}
    )
    raw = st.fixed_dictionaries({"raw": st.binary(max_size=60)})
    return st.one_of(one, one, more, raw)


def runs() -> st.SearchStrategy[dict[str, Any]]:
    """How far a run has come, and what is done to the files of its folder."""
    file = st.sampled_from(
        [
            "run.json",
            "recipe.toml",
            "metrics.jsonl",
            "checkpoint.pt",
            "checkpoint.previous.pt",
            "synthetic.safetensors",
            "grid.png",
            "eval.json",
            ".lock",
            "error.txt",
            "part-0.pt",
        ]
    )
    whole = st.integers(0, 999)
    lines = st.lists(json_values, max_size=4)
    status = st.sampled_from(
        ["identity", "finished", "running", "set", "continues", "from_step", "x"]
    )
    edit = st.one_of(
        st.tuples(file, st.just("flip"), st.tuples(whole, st.integers(1, 255))),
        st.tuples(file, st.just("cut"), whole),
        st.tuples(file, st.just("bytes"), st.binary(max_size=40)),
        st.tuples(file, st.just("json"), json_values),
        st.tuples(file, st.sampled_from(["gone", "folder", "twice", "link"]), st.just(0)),
        st.tuples(st.just("metrics.jsonl"), st.just("lines"), lines),
        st.tuples(st.just("run.json"), st.just("sealed"), st.tuples(status, json_values)),
        st.tuples(st.just("recipe.toml"), st.just("sealed"), _edited()),
        st.tuples(names, st.just("bytes"), st.binary(max_size=8)),
    )
    return st.fixed_dictionaries(
        {
            "state": st.sampled_from(["begun", "begun", "finished"]),
            "edits": st.lists(edit, min_size=1, max_size=2),
        }
    )
