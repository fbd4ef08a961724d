"""Before the first step a sampler's own draws are held against the learner, whichever sampler and engine it is."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.config import Config
from fastslow.errors import ConfigError, DivergedError, ServerError
from fastslow.loop import train
from fastslow.slow.agreement import Agreement, _Apart, longest_sequence, measure_agreement
from fastslow.slow.engine import SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local import loading
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.mismatch import Mismatch
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.tasks.registry import build_task
from fastslow.types import Completion

from runs import metrics_of, small_config

LYING = """
from dataclasses import replace

from fastslow.slow.samplers.forest import ForestSampler


class Lying(ForestSampler):
    '''Reports its log-probabilities `shift` nats too low, after contexts of at least `since` tokens.'''

    shift = 0.0

    def __init__(self, policy, shift: float = 0.0, since: int = 0):
        super().__init__(policy)
        self.shift, self.since = shift or self.shift, since

    def sample(self, requests, params):
        groups = super().sample(requests, params)
        return [
            [replace(c, logprobs=tuple(v - self.shift for v in c.logprobs)) for c in group]
            if len(request.context_tokens) >= self.since else group
            for request, group in zip(requests, groups)
        ]


class Raw(ForestSampler):
    '''Draws at a temperature and reports the log-probabilities of temperature 1.'''

    def sample(self, requests, params):
        from fastslow.slow.engine import TokenSequence
        from fastslow.slow.local.learner import LocalLearner

        learner, groups = LocalLearner(self.policy), super().sample(requests, params)
        return [
            [
                replace(c, logprobs=tuple(learner.logprobs([TokenSequence(request.context_tokens, c.tokens)])[0]))
                for c in group
            ]
            for request, group in zip(requests, groups)
        ]


class Half(Lying):
    dtype = "bfloat16"
"""
RL: dict[str, Any] = {"method": "rl", "steps": 1, "evaluation": {"every": 0}}


@pytest.fixture
def lying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The module above in the current directory; gives the config of one of its samplers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_samplers.py").write_text(textwrap.dedent(LYING), encoding="utf-8")
    return lambda kind="Lying", **options: {"kind": f"lying_samplers:{kind}", "options": options}


class Listening:
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.first, self.warnings = "", []  # type: ignore[var-annotated]

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "start":
            self.first = payload["engine"]
        if kind == "warning":
            self.warnings.append(payload["message"])


def measured(config: Config, engine: Any, longest: int | None = None) -> Agreement:
    task = build_task(config.task)
    tokens = longest or longest_sequence(config, task, engine, prompts=[task.seed_prompt], searches=False)
    return measure_agreement(config, task, engine, tokens)


def engine_of(config: Config) -> LocalEngine:
    return LocalEngine(config.model, config.slow, seed=config.seed, threads=1)


# -- runs --------------------------------------------------------------------------------------------------------------


def test_the_first_line_of_a_run_says_what_was_found(tiny_model_dir: Path, tmp_path: Path) -> None:
    heard = Listening()
    train(small_config(tiny_model_dir, tmp_path / "run", **RL), observer=heard)
    assert "; sampler and learner agree: mean " in heard.first and heard.warnings == []
    assert " nats over " in heard.first and " tokens of 4 contexts of up to " in heard.first
    assert "\n" not in heard.first
    train(small_config(tiny_model_dir, tmp_path / "run", **{**RL, "steps": 2}), resume=tmp_path / "run", observer=heard)
    assert "; sampler and learner agree: mean " in heard.first and heard.warnings == []
    assert all(line["slow/mismatch_kl"] < 1e-9 for line in metrics_of(tmp_path / "run")[1:])
    train(small_config(tiny_model_dir, tmp_path / "prompts", method="prompt", steps=1), observer=heard)
    assert "sampler and learner" not in heard.first  # no weights train


def test_a_sampler_that_lies_is_refused_with_the_size_and_the_way_out(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]]
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"sampler": lying(shift=0.05)}, **RL)
    with pytest.raises(ConfigError) as caught:
        train(config)
    for part in (
        "slow.sampler.kind: 'lying_samplers:Lying'", "they differ by 0.05 nats in the mean",
        "0.05 at most", "a mismatch KL of 0.0013 nats a token (allowed here: 0.0001)", "slow.sampler: {kind: forest}",
        "slow.mismatch_correction: mask",
    ):  # fmt: skip
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_sampler_that_differs_at_full_length_alone_is_refused(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]]
) -> None:
    """64 tokens after a long context must not drown among those of the problems."""
    config = small_config(
        tiny_model_dir,
        tmp_path / "run",
        sampling={"max_tokens": 300},
        slow={"sampler": lying(shift=0.05, since=250)},
        **RL,
    )
    with pytest.raises(ConfigError, match=r"after contexts of 296 tokens they differ by 0.05 nats"):
        train(config)


def test_log_probabilities_of_another_temperature_are_refused(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]]
) -> None:
    settings = {**RL, "sampling": {"temperature": 1.3}}
    assert train(small_config(tiny_model_dir, tmp_path / "ours", **settings)).steps == 1
    with pytest.raises(ConfigError, match="sampler and learner give other log-probabilities"):
        train(small_config(tiny_model_dir, tmp_path / "raw", slow={"sampler": lying("Raw")}, **settings))


def test_with_a_correction_a_run_goes_on_and_warns_of_what_it_sees(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]]
) -> None:
    """0.2 nats too low: k3 is exp(0.2) - 0.2 - 1 = 0.0214. Completions of over 3 tokens have a ratio above e^0.7."""
    heard = Listening()
    slow = {"sampler": lying(shift=0.2), "mismatch_correction": "mask", "learning_rate": 1e-3}
    config = small_config(tiny_model_dir, tmp_path / "run", slow=slow, **{**RL, "steps": 2})
    train(config, observer=heard)
    assert "sampler and learner agree: mean 0.2, max 0.2" in heard.first
    begun, step = heard.warnings  # once each, though there are two steps
    assert "which is above 0.01: slow.sampler: {kind: forest}" in begun
    assert step.startswith(
        "step 1: sampler and learner were 0.021 nats a token apart before the update (slow/mismatch_kl"
    )
    for line in metrics_of(tmp_path / "run")[1:]:
        assert line["slow/mismatch_kl"] == pytest.approx(0.0214, abs=1e-4)
        assert line["slow/mismatch_max"] == pytest.approx(0.2, abs=1e-4)
        assert 0 < line["slow/mismatch_masked"] <= line["slow/datums"]
    config = small_config(tiny_model_dir, tmp_path / "far", slow={**slow, "sampler": lying(shift=0.6)}, **RL)
    with pytest.raises(ConfigError, match=r"a mismatch KL of 0.22 nats a token \(allowed here: 0.1\)"):
        train(config)


def test_a_resumed_run_is_measured_with_its_own_weights_and_warned_not_refused(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**RL, "slow": {"sampler": lying()}, "checkpoint_every": 1}
    train(small_config(tiny_model_dir, tmp_path / "run", **settings))
    import lying_samplers  # type: ignore[import-not-found]

    monkeypatch.setattr(lying_samplers.Lying, "shift", 0.1)
    heard = Listening()
    config = small_config(tiny_model_dir, tmp_path / "run", **{**settings, "steps": 2})
    assert train(config, resume=tmp_path / "run", observer=heard).steps == 2
    assert "sampler and learner differ: mean 0.1" in heard.first
    assert "a mismatch KL of 0.0052 nats a token" in heard.warnings[0]


# -- the measure -------------------------------------------------------------------------------------------------------


class Wrapped:
    """An engine of somebody's own around ours: nothing but the protocol."""

    def __init__(self, inner: LocalEngine, shift: float = 0.0) -> None:
        self.inner, self.shift = inner, shift
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        self.asked += [len(request.context_tokens) for request in requests]
        groups = self.inner.sample(requests, params)
        return [[replace(c, logprobs=tuple(v - self.shift for v in c.logprobs)) for c in g] for g in groups]


def test_an_engine_of_ones_own_is_measured_at_full_length_against_its_own_learner(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    inner = engine_of(config)
    honest, slightly, far = (Wrapped(inner, shift) for shift in (0.0, 0.1, 0.3))
    assert measured(config, honest, 900).complaint is None
    assert 880 < max(honest.asked) <= 892 and len(honest.asked) == 4
    assert measured(config, slightly, 900).complaint is None  # nobody knows its precision: 0.005 is below 0.01
    own = config.model_copy(update={"engine": "own:Engine"})
    complaint = measured(own, far, 900).complaint
    assert complaint is not None and complaint.startswith("engine: 'own:Engine': sampler and learner give other")
    assert "mend the engine own:Engine" in complaint


def test_our_own_sampler_needs_no_full_length_where_every_length_is_computed_alike(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    assert "contexts of up to 5" in measured(config, engine_of(config), 2000).found


def test_the_bar_is_that_of_the_less_precise_side(
    tiny_model_dir: Path, tmp_path: Path, lying: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"sampler": lying("Half", shift=0.1)}, **RL)
    assert measured(config, engine_of(config)).complaint is None
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: True)
    config = small_config(tiny_model_dir, tmp_path / "run", model={"dtype": "bfloat16"}, **RL)
    engine = engine_of(config)
    found = measured(config, engine)
    assert engine.policy.dtype is torch.bfloat16 and found.complaint is None
    assert "sampler and learner agree: mean 0.0" in found.found  # its own noise, far above float32's


def test_measuring_changes_neither_weights_nor_draws(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    engine = engine_of(config)
    asked = [SampleRequest((10, 11, 12), 4, seed=1)]
    before, state = engine.sample(asked, SamplingParams(8)), torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    first = measured(config, engine)
    assert measured(config, engine) == first and first.warning is None
    assert engine.sample(asked, SamplingParams(8)) == before and torch.equal(torch.random.get_rng_state(), state)
    assert engine.policy_version == 0 and engine.learner._optimiser is None
    assert all(torch.equal(weights[name], tensor) for name, tensor in engine.model.state_dict().items())


@pytest.mark.parametrize(
    ("error", "said"),
    [(torch.OutOfMemoryError("no room"), "out of memory at 900 tokens"), ("refused", "it has no forward")],
)
def test_what_cannot_be_measured_is_said_and_warned_of(
    tiny_model_dir: Path, tmp_path: Path, error: Any, said: str
) -> None:
    if error == "refused":
        error = ServerError("it has no forward")
        error.reachable = True
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    engine = Wrapped(engine_of(config))
    engine.logprobs = lambda sequences: (_ for _ in ()).throw(error)  # type: ignore[attr-defined]
    found = measured(config, engine, 900)
    assert found.complaint is None and found.warning == found.found == f"sampler and learner were not compared: {said}"


@pytest.mark.parametrize("error", [ServerError("gone"), DivergedError("NaN")])
def test_a_server_that_is_gone_and_numbers_that_are_none_end_the_start(
    error: Exception, tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    engine = Wrapped(engine_of(config))
    engine.logprobs = lambda sequences: (_ for _ in ()).throw(error)  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        measured(config, engine, 900)


def test_log_probabilities_that_are_nan_are_no_agreement(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", **RL)
    engine = Wrapped(engine_of(config))

    def nans(sequences: Sequence[TokenSequence]) -> list[list[float]]:
        return [[float("nan")] * len(sequence.completion_tokens) for sequence in sequences]

    engine.logprobs = nans  # type: ignore[attr-defined]
    assert "a mismatch KL of nan nats" in (measured(config, engine, 900).complaint or "")


def test_the_longest_sequence_counts_problem_prompt_and_completion(tiny_model_dir: Path, tmp_path: Path) -> None:
    engine = LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"), SlowConfig(), threads=1)
    plain = small_config(tiny_model_dir, tmp_path, method="rl")
    task = build_task(plain.task)
    contexts = [len(engine.encode(task.messages(p, task.seed_prompt))) for p in task.problems("train")]

    def longest(config: Config, searches: bool) -> int:
        return longest_sequence(config, task, engine, prompts=[task.seed_prompt], searches=searches)

    assert longest(plain, False) >= max(contexts) + plain.sampling.max_tokens
    assert longest(plain, False) < max(contexts) + plain.sampling.max_tokens + 20
    proposer = {"max_prompt_chars": 100}
    searching = small_config(tiny_model_dir, tmp_path, fast={"proposer": proposer})
    # The test tokenizer has a token for each character.
    assert longest(searching, True) == longest(plain, False) + 100
    assert longest(small_config(tiny_model_dir, tmp_path), True) == engine.context_limit


@pytest.mark.parametrize("problems", [True, False])
def test_what_is_not_a_number_counts_as_the_worst(problems: bool) -> None:
    sound, broken = Mismatch(), Mismatch()
    sound.add(torch.full((4,), 1e-6))
    broken.add(torch.tensor([1e-6, math.nan]))
    apart = _Apart(broken, sound, broken) if problems else _Apart(sound, broken, broken)
    assert math.isnan(apart.worst.kl)
