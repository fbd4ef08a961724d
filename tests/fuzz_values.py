"""What hypothesis makes for tests/fuzz: values as files and servers may hold them, and texts changed by accident."""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

WANTED = os.environ.get("FASTSLOW_FUZZ")
FUZZ = settings(
    max_examples=int(WANTED or "25"),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
"""How long hypothesis looks: always at the same few examples in the suite, otherwise at `FASTSLOW_FUZZ` new ones."""

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "null", "~", "yes", "1e999", "-0", "010", "1:30", "\ud800", "\x00", "\x1b[31m", "<|im_end|>", "../..",
         "package:../..", "a:b", "[/bad]", "{{x}}", "9" * 400, "x" * 3000, "\u202e", "nan", "2026-13-45",
         "&a [*a]", "!!python/x"]
    ),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 1e308, 5e-324, 0.5, 1.0000001]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def changed_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """A file after an accident: some of its bytes are gone, doubled, moved or replaced."""
    data = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["cut", "double", "replace", "insert", "truncate"]))
        if how == "cut":
            del data[start:end]
        elif how == "double":
            data[start:start] = data[start:end]
        elif how == "replace":
            data[start:end] = draw(st.binary(max_size=8))
        elif how == "insert":
            data[start:start] = draw(st.one_of(st.binary(max_size=8), TEXTS.map(lambda t: t.encode(errors="replace"))))
        else:
            del data[start:]
    return bytes(data)


@st.composite
def changed_tree(draw: st.DrawFn, original: Any) -> Any:
    """A copy of a record in which some values, or whole parts, are others, gone or new."""
    tree = original
    for _ in range(draw(st.integers(1, 3))):
        tree = draw(_changed_once(tree))
    return tree


def _changed_once(tree: Any) -> st.SearchStrategy[Any]:
    here = VALUES
    if isinstance(tree, dict) and tree:

        @st.composite
        def inside(draw: st.DrawFn) -> Any:
            key = draw(st.sampled_from(sorted(tree, key=repr)))
            how = draw(st.sampled_from(["deeper"] * 8 + ["gone", "new"]))
            if how == "gone":
                return {name: value for name, value in tree.items() if name != key}
            if how == "new":
                return {**tree, draw(TEXTS): draw(VALUES)}
            return {**tree, key: draw(_changed_once(tree[key]))}

        return inside()
    if isinstance(tree, list) and tree:

        @st.composite
        def item(draw: st.DrawFn) -> Any:
            index = draw(st.integers(0, len(tree) - 1))
            return [*tree[:index], draw(_changed_once(tree[index])), *tree[index + 1 :]]

        return st.one_of(item(), here) if len(tree) < 50 else item()
    return here
