"""The house stays in order: what `tools/structure.py` counts meets its goals, and it can see what does not."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def load_tool() -> Any:
    path = Path(__file__).parents[3] / "tools" / "structure.py"
    spec = importlib.util.spec_from_file_location("structure", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.mark.parametrize("line", tool.count(), ids=lambda line: line.what)
def test_every_goal_is_met(line: Any) -> None:
    assert line.met, "\n".join(line.places)


def test_circles_and_arrows_upwards_are_seen() -> None:
    trees = {
        name: ast.parse(text)
        for name, text in {
            "": "", "slow.a": "from fastslow.slow import b", "slow.b": "def f():\n    from fastslow.slow.a import x",
            "tasks.c": "from fastslow.loop import train", "loop": "",
            "fast.settings": "from fastslow.section import Section", "section": "",
            "config.run": "from fastslow.fast.settings import FastConfig",
        }.items()
    }  # fmt: skip
    edges = tool.imports(trees)
    assert tool.circles(edges) == [("slow.a", "slow.b")]
    assert tool.upwards(edges) == ["tasks.c imports loop"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('x = config.method == "rl"', True),
        ('x = labels.get("method") in ("fst", "rl")', True),
        ('NAMES = {"fst": "FST", "rl": "RL alone"}', True),
        ('RATES = {"fst": 1e-4, "rl": 3e-4}', False),
        ('x = rollout.source == "rl"', False),
    ],
)
def test_a_question_for_the_method_is_seen(text: str, seen: bool) -> None:
    assert bool(tool.asks_for_a_method({"plan": ast.parse(text)})) == seen
    assert tool.asks_for_a_method({"methods.rl": ast.parse(text)}) == []
