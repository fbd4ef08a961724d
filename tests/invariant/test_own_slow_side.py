"""A loss, a sampler and an engine of somebody's own: a file outside the package, named in a config, with an effect that
is seen in the metrics. These are the examples of docs/engine.md.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.plan import describe

from runs import metrics_of, small_config

ENGINE_PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
RL: dict[str, Any] = {"method": "rl", "steps": 2}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes an example of the page as the module that its first line names, into the current directory."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", ENGINE_PAGE.read_text(encoding="utf-8"), re.M | re.S)

    def write(name: str) -> None:
        (tmp_path / f"{name}.py").write_text(dict(blocks)[name], encoding="utf-8")

    return write


def test_a_loss_runs_and_its_own_metric_is_on_every_line_with_an_update(
    tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None]
) -> None:
    example("sequence_loss")
    slow = {"loss": "sequence_loss:gspo", "clip_low": 0.5, "clip_high": 0.5}
    config = small_config(tiny_model_dir, tmp_path / "own", slow=slow, **RL)
    assert "loss: sequence_loss:gspo, importance ratio clamped to [0.5, 1.5] (absolute)" in describe(config)
    train(config)
    first, *lines = metrics_of(tmp_path / "own")
    assert "slow/loss/sequence_ratio" not in first
    for line in lines:
        assert line["slow/loss/sequence_ratio"] == pytest.approx(1, abs=1e-4)
        assert line["slow/clip_fraction"] == 0.0 and line["slow/grad_norm"] > 0


def test_a_loss_that_does_not_declare_a_clip_is_refused_before_a_model_loads(
    tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None]
) -> None:
    (tmp_path / "silent_loss.py").write_text("def loss(inputs):\n    raise AssertionError\n", encoding="utf-8")
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"loss": "silent_loss:loss", "clip_high": 0.5}, **RL)
    with pytest.raises(ConfigError, match=r"slow.clip_high: 0.5 sets a ceiling, which silent_loss:loss does not have"):
        train(config)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"slow.loss: 'nowhere:loss' cannot be imported"):
        train(small_config(tiny_model_dir, tmp_path / "run", slow={"loss": "nowhere:loss"}, **RL))


def test_a_sampler_draws_for_our_learner(tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None]) -> None:
    example("short_sampler")
    train(small_config(tiny_model_dir, tmp_path / "ours", **RL))
    sampler = {"kind": "short_sampler:ShortSampler", "options": {"longest": 2}}
    train(small_config(tiny_model_dir, tmp_path / "own", slow={"sampler": sampler}, **RL))
    ours, own = metrics_of(tmp_path / "ours"), metrics_of(tmp_path / "own")
    assert all(line["rollouts/completion_tokens"] > 2 for line in ours[1:])
    assert all(line["rollouts/completion_tokens"] <= 2 for line in own[1:])
    assert own[1]["slow/datums"] and own[1]["slow/ratio_mean"] == pytest.approx(1, abs=1e-4)  # the learner speaks of it


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"kind": "short_sampler:ShortSampler", "options": {"longst": 2}}, r"slow.sampler.options.longst: unknown"),
        ({"kind": "short_sampler:ForestSampler", "options": {"longest": 2}}, r"slow.sampler.options.longest: unknown"),
        ({"kind": "short_sampler:NOTHING"}, r"slow.sampler.kind: 'short_sampler:NOTHING' cannot be imported"),
        (
            {"kind": "collections:Counter"},
            r"slow.sampler.kind: .* gave Counter\(\), .*it lacks sample, sync",
        ),
        ({"kind": "forst"}, r"slow.sampler.kind: 'forst' is unknown"),
    ],
)
def test_a_sampler_that_cannot_be_is_named(
    tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None], sampler: dict[str, Any], message: str
) -> None:
    example("short_sampler")
    with pytest.raises(ConfigError, match=message):
        train(small_config(tiny_model_dir, tmp_path / "run", slow={"sampler": sampler}, **RL))
    assert not (tmp_path / "run").exists()


def test_an_engine_trains_evaluates_and_resumes(
    tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None]
) -> None:
    """An engine that learns at a tenth of the rate stays nearer to the base."""
    example("slow_engine")
    settings = {**RL, "steps": 3, "evaluation": {"every": 3}, "checkpoint_every": 1}
    train(small_config(tiny_model_dir, tmp_path / "ours", **settings))
    own = {**settings, "engine": "slow_engine:SlowEngine", "engine_options": {"factor": 0.1}}
    config = small_config(tiny_model_dir, tmp_path / "own", **own)
    assert "parameters, sampled and trained by slow_engine:SlowEngine" in describe(config)
    train(config)
    ours, lines = metrics_of(tmp_path / "ours")[-1], metrics_of(tmp_path / "own")
    assert 0 < lines[-1]["kl/base"] < 0.2 * ours["kl/base"]
    train(small_config(tiny_model_dir, tmp_path / "two", **{**own, "steps": 2}))
    train(small_config(tiny_model_dir, tmp_path / "two", **own), resume=tmp_path / "two")
    assert metrics_of(tmp_path / "two")[-1]["slow/loss"] == lines[-1]["slow/loss"]
    measured = evaluate(tmp_path / "own", kl=True, prompt="seed", problems=2).rows[0]
    base = evaluate(tmp_path / "own", kl=True, prompt="seed", problems=2, weights="base").rows[0]
    assert measured.kl is not None and base.kl is not None
    assert measured.kl.mean > 1e-6 > abs(base.kl.mean)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"engine": "slow_engine:SlowEngine", "engine_options": {"fctor": 1.0}}, r"engine_options.fctor: unknown"),
        (
            {"engine": "collections:Counter"},
            r"engine: 'collections:Counter' gave Counter\(\), .*PolicyEngine: it lacks context_limit, decode",
        ),
        ({"engine": "remote"}, "engine: 'remote' is unknown: take one of local, tinker, or package.module:Class"),
        ({"engine_options": {"factor": 1.0}}, r"engine_options: \['factor'\] are options of an engine of your own"),
        (
            {"engine": "slow_engine:SlowEngine", "slow": {"sampler": {"kind": "a:B"}}},
            "slow.sampler.kind: 'a:B' draws for eng",
        ),
    ],
)
def test_an_engine_that_cannot_be_is_named(
    tiny_model_dir: Path, tmp_path: Path, example: Callable[[str], None], tree: dict[str, Any], message: str
) -> None:
    example("slow_engine")
    with pytest.raises(ConfigError, match=message):
        train(small_config(tiny_model_dir, tmp_path / "run", **tree, **RL))
    assert not (tmp_path / "run").exists()
