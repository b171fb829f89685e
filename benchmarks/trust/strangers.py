"""What the fuzzer draws of what strangers bring: image folders, plugins, streams and locales."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from odd import NAMES, RECIPES, names

_whole = st.integers(0, 999)
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "ICO", "TGA", "PCX", "JPEG2000")
_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB", "PA")
_SIZES = ((6, 6), (6, 6), (6, 6), (1, 1), (7, 5), (1, 300), (300, 2))
_ENDINGS = (".png", ".PNG", ".jpg", ".jpeg", ".gif", ".tif", ".webp", ".txt", "", ".svg", ".npy")
_BYTES = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"%!PS-Adobe",
    b"II*\0\xff\xff\xff\xff",
    b"P6 9 9 70000\n",
)

_damage = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.just("cut"), _whole),
    st.tuples(st.just("flip"), _whole, st.integers(1, 255)),
    st.tuples(st.just("tail"), st.binary(max_size=20)),
)
_plain = st.tuples(st.just("image"), st.just("PNG"), st.just("RGB"), st.just((6, 6)), st.none())
_image = st.tuples(
    st.just("image"),
    st.sampled_from(_FORMATS),
    st.sampled_from(_MODES),
    st.sampled_from(_SIZES),
    _damage,
)
_extra = st.tuples(
    st.sampled_from(["frames", "turned", "clear", "opaque", "bomb"]),
    st.sampled_from(["PNG", "GIF", "TIFF", "WEBP", "JPEG"]),
)
_other = st.one_of(
    st.tuples(st.just("bytes"), st.sampled_from(_BYTES) | st.binary(max_size=30)),
    st.tuples(
        st.just("link"), st.sampled_from([".", "..", "nowhere", "/etc/passwd", "a", "0.png"])
    ),
    st.tuples(st.sampled_from(["fifo", "socket", "folder"]), st.just(0)),
)
_raw_names = st.binary(min_size=1, max_size=6).map(lambda b: b.decode("utf-8", "surrogateescape"))
_file_names = st.builds(
    lambda stem, end: stem + end, st.sampled_from(["0", "1", "2", "3"]), st.sampled_from(_ENDINGS)
)


def folders() -> st.SearchStrategy[dict[str, Any]]:
    """Two class folders, in one of the layouts, with odd entries; and the dataset's options."""
    anything = st.one_of(_image, _image, _extra, _other)
    odd_name = st.one_of(names, _raw_names, _file_names)
    places = st.one_of(
        st.tuples(st.sampled_from(["", "a", "b", "train", "test", "train/a", "Test/b"]), odd_name),
        st.tuples(odd_name, _file_names),
    )
    channels = st.sampled_from([None, 1, 3])
    values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1e-20, 1e30]), max_size=4)
    options = st.fixed_dictionaries(
        {},
        optional={
            "resolution": st.sampled_from([1, 4, 8, 64]),
            "channels": channels,
            "test_every": st.sampled_from([2, 5, 2**62]),
            "mean": values,
            "std": values,
        },
    )
    entry = st.tuples(places, anything)
    fair = {
        "layout": st.sampled_from(["flat", "split", "Split"]),
        "classes": st.sampled_from([["a", "b"], ["b", "A", "Ä"]])
        | st.lists(names, min_size=2, max_size=3, unique=True),
        "files": st.lists(_plain, min_size=2, max_size=3),
        "entries": st.lists(entry, max_size=1),
        "options": options | st.just({}),
    }
    wild = {
        "layout": st.sampled_from(["flat", "flat", "split", "Split", "none"]),
        "classes": st.lists(st.sampled_from(["a", "b", "c"]) | names, max_size=3),
        "files": st.lists(st.one_of(_plain, _plain, _image), max_size=3),
        "entries": st.lists(entry, max_size=3),
        "options": options,
    }
    return st.fixed_dictionaries(fair) | st.fixed_dictionaries(wild)


_FACTORIES = (
    *("make", "max", "dict", "int", "str", "type", "object", "print", "len", "iter", "range"),
    *("Odd", "Odd()", "wrong", "partial", "dataclass_", "untyped", "3", "None", "'x'", "mean"),
)
_HOOKS = (
    *("{}", "None", "3", "[]", "'x'", "1 / 0", "sys.exit(3)", "sys.exit()", "(x for x in ())"),
    *("{1: make}", "{'': make}", "{None: make}", "Breaks()", "[('x', make)]", "print('x') or {}"),
    *("(_ for _ in ()).throw(StrangeError())", "recurse()", "{'x': make, 'x/': make}"),
)
_LINES = (
    *("", "raise SystemExit", "raise ValueError('two\\nlines')", "import nosuchmodule", "x ="),
    *("raise KeyboardInterruptLike('\\x1b[31m')", "del hookimpl", "print('hello')", "\0", "1/0"),
)


def plugins() -> st.SearchStrategy[dict[str, Any]]:
    """A stranger's distribution: its records, its module, and what its hook gives."""
    named = st.tuples(names, st.sampled_from(_FACTORIES)).map(lambda p: f"{{{p[0]!r}: {p[1]}}}")
    entry = st.sampled_from(
        [
            "fuzzed",
            "fuzzed:attr",
            "nosuch",
            "fuzzed:",
            ":",
            "",
            "a b c",
            "ddkit",
            "os",
            "fuzzed [x]",
        ]
    )
    listed = st.builds(
        lambda key, value: f"[ddkit]\n{key} = {value}\n".encode(errors="replace"), names, entry
    )
    garbage = st.sampled_from(
        [
            b"",
            b"[ddkit]\n",
            b"x = 1",
            b"[ddkit",
            b"[ddkit]\nx",
            b"\xff\xfe\x00",
            b"[ddkit]\n= x\n",
            b"[ddkit]\nx = fuzzed\nx = fuzzed\n",
            b"[ddkit]\n" + b"x" * 5000 + b" = fuzzed\n",
        ]
    )
    good = st.just(b"[ddkit]\nfuzzed = fuzzed\n")
    metadata = st.sampled_from(
        [
            b"Metadata-Version: 2.1\nName: strange\nVersion: 1\n",
            b"",
            b"Name:\n",
            b"\xff\x00",
            None,
            b"Name: a\nName: b\n",
            b"Name: x\x1b[31m\nVersion: \x1b[2J\n",
            b"Name: ddkit\n",
            "Name: \u202e猫\nVersion: 1\n".encode(),
            b"Name: " + b"x" * 3000 + b"\n",
            b"\n\nName: x",
        ]
    )
    return st.fixed_dictionaries(
        {
            "folder": st.sampled_from(["strange-1.dist-info", "~strange-1.dist-info", "x.egg-info"])
            | names.map(lambda n: n.replace("/", "") + ".dist-info"),
            "entries": st.one_of(good, good, good, listed, garbage, st.binary(max_size=40)),
            "metadata": metadata,
            "kind": st.sampled_from(["methods", "regularizers", "backbones", "datasets", "other"]),
            "line": st.sampled_from([*[""] * 8, *_LINES]),
            "hook": st.one_of(named, named, st.sampled_from(_HOOKS)),
            "said": names,
        }
    )


_STREAMS = ("plain", "plain", "full", "gone", "closed", "none", "bare")
_CODINGS = ("utf-8", "ascii", "latin-1", "cp1252", "utf-16", "shift_jis", "cp037", "nonsense")


def _stream() -> st.SearchStrategy[tuple[str, str, int]]:
    room = st.sampled_from([0, 1, 100, 10**9])
    return st.tuples(st.sampled_from(_STREAMS), st.sampled_from(_CODINGS[:-1]), room)


def commands() -> st.SearchStrategy[list[str]]:
    """Words of a command that ends soon: nothing in them trains."""
    word = st.sampled_from(NAMES) | st.text(max_size=6)
    recipe = st.sampled_from(sorted(RECIPES)) | word
    return st.one_of(
        st.builds(lambda s, j: ["show", s, *j], _set, st.sampled_from([[], ["--json"]])),
        st.builds(lambda s, p: ["show", s, "--png", f"@out:{p}"], _set, word),
        st.builds(lambda s, d: ["export", s, f"@out:{d}"], _set, word),
        st.builds(lambda w: ["recipes", "list", *w], st.lists(word, max_size=2)),
        st.builds(lambda r: ["recipes", "show", r], recipe),
        st.builds(lambda r, d: ["recipes", "copy", r, f"@out:{d}"], recipe, word),
        st.builds(
            lambda k, n: ["list", k, *n], st.sampled_from(_KINDS), st.lists(word, max_size=1)
        ),
        st.builds(lambda r, s: ["distill", f"no-such-{r}", "--set", s], word, word),
        st.builds(lambda r, s: ["-v", "distill", r, "--set", f"nonsense={s}"], recipe, word),
        st.builds(lambda s: ["eval", f"no-such-{s}"], word),
        st.sampled_from([["--version"], ["--help"], [], ["plugins"], ["plugins", "--json"]]),
        st.lists(word, max_size=2).filter(lambda w: "--" not in w),
    )


_set = st.sampled_from(["@set", "@set", "@folder", "@bad"]) | names
_KINDS = ("methods", "datasets", "sections", "recipes", "protocols", "nonsense")


def streams() -> st.SearchStrategy[dict[str, Any]]:
    """A command and the streams that it is given."""
    return st.fixed_dictionaries({"words": commands(), "out": _stream(), "err": _stream()})


def locales() -> st.SearchStrategy[dict[str, Any]]:
    """A command and the environment of a process of its own."""
    surroundings = st.fixed_dictionaries(
        {},
        optional={
            "LC_ALL": st.sampled_from(["C", "POSIX", "C.UTF-8", "de_DE", "nonsense", ""]),
            "LANG": st.sampled_from(["C", "ja_JP.SJIS", "en_US.UTF-8"]),
            "PYTHONUTF8": st.sampled_from(["0", "1"]),
            "PYTHONCOERCECLOCALE": st.just("0"),
            "PYTHONIOENCODING": st.sampled_from(["ascii", "latin-1", "utf-16", "cp1252:strict"]),
            "COLUMNS": st.sampled_from(["0", "1", "-3", "x", "10000"]),
            "TERM": st.sampled_from(["dumb", "xterm", "", "nonsense"]),
            "HOME": st.sampled_from(["", "/nonexistent", "~"]),
            "DDKIT_HOME": st.sampled_from(["", "~", "~nosuch", "/dev/null", "/nonexistent/x"]),
            "TZ": st.sampled_from(["nonsense", ""]),
        },
    )
    return st.fixed_dictionaries({"words": commands(), "env": surroundings})
