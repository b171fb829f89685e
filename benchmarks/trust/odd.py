"""Odd values that the strategies draw from: names, numbers, texts, keys."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from ddkit.recipes import catalog

NAMES = (
    *("a", "b", "Ä", "A\u0308", "猫", "a b", "a-b", "a/b", "..", "../../x", ".", "", "/etc/x", "~"),
    *("~nosuchuser", "con", "NUL.txt", "aux ", "x.", ".hidden", "-rf", "%2F", "a\\b", "a:b"),
    *("classes.json", "Thumbs.db", "@eaDir", "$RECYCLE.BIN", "lost+found", "__MACOSX"),
    *("\x1b[31mred", "\x1b]0;title\x07", "line\nend", "tab\t", "\r", "\u202eright", "\u200b"),
    *("\x9b2J", "\ufeff", "\U0001f600", "x" * 180, "x" * 300, "é" * 200, "\x7f", "a\u2028b"),
)
"""What a file, a class or a dataset may be called by somebody careless or malicious."""

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 255, 256, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1),
    *(10**20, 10**400, 0.0, -0.0, 0.5, 1e-30, 1e-320, 1e30, 3.5e38, 1e308),
    *(float("inf"), float("-inf"), float("nan"), True, False),
)

_SHIPPED = {name: path.read_text(encoding="utf-8") for name, path in catalog.recipes().items()}
RECIPES = {name: _SHIPPED[name] for name in list(_SHIPPED)[::6]}
"""The text of every sixth shipped recipe: of all methods and of most datasets."""

KEYS = sorted(
    {key for text in _SHIPPED.values() for key in re.findall(r"^([\w.]+) *=", text, re.M)}
)
SECTIONS = ("dataset", "backbone", "synthetic", "method", "proxies", "regularizers", "eval")
SECTIONS += ("runtime", "seed", "eval.teacher", "eval.presets", "proxies.backbone", "nonsense")
PARTS = ("dm", "dc", "idm", "idc", "ncfm", "random", "convnet", "timm/resnet18", "timm/", "digits")
PARTS += ("folder", "cifar10", "cmi", "iid", "resnet18", "mlp", "/", "timm/" + "x" * 300)

TOML = (
    *("nan", "inf", "-inf", "1e400", "0", "-1", "1", "9" * 20, "9" * 5000, "true", '""', "''"),
    *('"x"', "2024-01-01", "12:00:00", "1979-05-27T07:32:00Z", "[]", "{}", "[[]]", "[{}]"),
    *('"~nosuch/x"', '"\\u0000"', '"\\u001b[2J"', '"\\U0001F600"', "'" + "x" * 3000 + "'"),
    *('{name = "dm"}', "{name = 1}", '{name = ""}', "0x10", "0.5", "[1, 2]", '["convnet"]'),
    *("[" * 40 + "]" * 40, "[" * 3000 + "]" * 3000, "{a=" * 500 + "1" + "}" * 500, '"""\n\n"""'),
    *('"/dev/zero"', '"/proc/self/mem"', '"' + "../" * 30 + 'x"', "[0.5, 0.5, 0.5]", "1_000"),
)
"""Values as text, most of them TOML."""

names = st.sampled_from(NAMES) | st.text(max_size=8)
whole_names = st.sampled_from(NAMES) | st.text(
    st.characters(codec="utf-8"), max_size=8
)  # that UTF-8 can hold
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
scalars = st.none() | numbers | whole_names
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(whole_names, inner, max_size=4),
    max_leaves=8,
)
"""What JSON can say, and Python's NaN and infinities."""
