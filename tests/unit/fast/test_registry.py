"""An optimiser of one's own, as docs/prompts.md tells it."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.plan import describe
from fastslow.training.build import check

from runs import metrics_of, small_config

DOCS = Path(__file__).parents[3] / "docs" / "prompts.md"


@pytest.fixture
def shuffle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's example as a file in the current directory."""
    text = DOCS.read_text(encoding="utf-8").partition("## Write your own optimiser")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert "optimiser: shuffle:ShuffleOptimiser" in settings
    (tmp_path / "shuffle.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shuffle", raising=False)
    return tmp_path


def run_with(name: str, model: Path, output: Path, **more: Any) -> list[dict[str, Any]]:
    fast = {"optimiser": name, "anchor_problems": 6, "metric_calls": 24}
    train(small_config(model, output, steps=2, fast=fast, **more))
    return metrics_of(output)


def test_an_optimiser_named_in_the_config_searches(shuffle: Path, tiny_model_dir: Path) -> None:
    lines = run_with("shuffle:ShuffleOptimiser", tiny_model_dir, shuffle / "run")
    assert sum(line["fast/metric_calls"] for line in lines) == 4 * 6
    assert lines[-1]["rollouts/sampled_gepa"] + lines[1]["rollouts/sampled_gepa"] > 0
    text = describe(small_config(tiny_model_dir, shuffle / "other", fast={"optimiser": "shuffle:ShuffleOptimiser"}))
    assert "shuffle:ShuffleOptimiser every 2 steps" in text


def test_its_options_go_to_its_constructor(shuffle: Path, tiny_model_dir: Path) -> None:
    fast = {"optimiser": "shuffle:ShuffleOptimiser", "options": {"tries": 1}, "anchor_problems": 6, "metric_calls": 24}
    train(small_config(tiny_model_dir, shuffle / "run", steps=2, fast=fast))
    assert sum(line["fast/metric_calls"] for line in metrics_of(shuffle / "run")) == 2 * 6
    with pytest.raises(ConfigError, match=r"fast.options.tires: unknown for .* Did you mean 'tries'"):
        train(small_config(tiny_model_dir, shuffle / "other", steps=2, fast=fast | {"options": {"tires": 1}}))


@pytest.mark.parametrize(("name", "method"), [("frozen", "fst"), ("gepa", "rl")])
def test_the_frozen_optimiser_and_plain_rl_do_not_search(
    tiny_model_dir: Path, tmp_path: Path, name: str, method: str
) -> None:
    lines = run_with(name, tiny_model_dir, tmp_path / name, method=method)
    assert sum(line["fast/metric_calls"] for line in lines) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpea", "fast.optimiser: 'gpea' is unknown: take one of 'gepa', 'frozen', 'package.module:Class'"),
        ("nowhere:build", "fast.optimiser: 'nowhere:build' cannot be imported"),
        ("math:pi", "fast.optimiser: 'math:pi' cannot be called: name a class with `evolve`"),
    ],
)
def test_an_optimiser_that_does_not_exist_is_refused_before_anything_loads(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(small_config(Path("no-model"), Path("run"), fast={"optimiser": name}))
