"""Equalities of the local engine: however the work is cut up and shared, the numbers are equal, none is wasted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig, SlowConfig

KL = 0.1
LOSS = LossSettings(kl_coefficient=KL)
PARAMS = SamplingParams(10)
SYSTEM = tuple(range(20, 40))  # what the problems of a minibatch share
CONTEXTS = [(*SYSTEM, 50, 51), (*SYSTEM, 50, 52, 53), (*SYSTEM[:10], 54), (60,)]
REQUESTS = [SampleRequest(context, 2, seed) for seed, context in enumerate(CONTEXTS)]


def make(directory: Path, **slow: Any) -> LocalEngine:
    config = ModelConfig(name=str(directory), device="cpu")
    return LocalEngine(config, SlowConfig(max_grad_norm=None, **slow))


@pytest.fixture(scope="module")
def datums(tiny_model_dir: Path) -> list[Datum]:
    """Eight rollouts, off-policy on purpose, so that ratios differ and some are clipped."""
    groups = make(tiny_model_dir).sample(REQUESTS, PARAMS)
    flat = [(r.context_tokens, c) for r, group in zip(REQUESTS, groups, strict=True) for c in group]
    generator = torch.Generator().manual_seed(0)
    datums = []
    for index, (context, completion) in enumerate(flat):
        drift = torch.randn(len(completion.tokens), generator=generator).tolist()
        sampler = tuple(value - 2 * shift for value, shift in zip(completion.logprobs, drift, strict=True))
        datums.append(Datum(context, completion.tokens, sampler, (-1.0) ** index * (1 + index / 8), 1 / (50 + index)))
    assert len({len(datum.completion_tokens) for datum in datums}) > 2
    return datums


def gradients(
    engine: LocalEngine, datums: Sequence[Datum], directory: Path, loss: LossSettings = LOSS
) -> tuple[dict[str, torch.Tensor], Any]:
    """The gradient of a first update, from Adam's first moment, 0.1 times the gradient; and the update's metrics."""
    metrics = engine.train_step(datums, loss, learning_rate=1e-30)
    engine.save(directory, resumable=True)
    state = load_file(directory / "resume" / "optimizer.safetensors")
    return {k.removeprefix("exp_avg/"): 10 * v for k, v in state.items() if k.startswith("exp_avg/")}, metrics


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rounding: float = 3e-6) -> None:
    assert a.keys() == b.keys()
    assert max(float(value.abs().max()) for value in a.values()) > 0.1
    for name, value in a.items():
        assert float((value - b[name]).abs().max()) < rounding, name


def reference_gradients(
    directory: Path, datums: Sequence[Datum], temperature: float = 1.0, bonus: float = 0.0
) -> tuple[dict[str, torch.Tensor], float]:
    """CISPO with KL penalty as the paper writes it, in float64, one sequence a pass, nothing of the engine in it;
    `bonus` times the entropy is taken off.

    The policy, and the base, are softmax(logits / temperature).
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    loss = torch.zeros((), dtype=torch.float64)
    for datum in datums:
        tokens = torch.tensor([[*datum.context_tokens, *datum.completion_tokens]])
        logits = model(input_ids=tokens).logits[0, len(datum.context_tokens) - 1 : -1]
        targets = torch.tensor(datum.completion_tokens)[:, None]
        logprobs = (logits / temperature).log_softmax(-1)
        learner, entropy = logprobs.gather(1, targets)[:, 0], -(logprobs.exp() * logprobs).sum(-1)
        ratio = (learner.detach() - torch.tensor(datum.sampler_logprobs)).exp().clamp(max=4.0)
        difference = learner.detach() - learner  # the base is the model itself before the update
        penalty = difference.exp() - difference - 1
        policy = KL * penalty - ratio * datum.advantage * learner - bonus * entropy
        loss = loss + datum.token_weight * policy.sum()
    loss.backward()
    return {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}, loss.item()


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("microbatch_tokens", [1, 40, 4096])
def test_one_update_is_the_same_however_it_is_cut_up(
    tiny_model_dir: Path, datums: list[Datum], tmp_path: Path, sharing: bool, microbatch_tokens: int
) -> None:
    engine = make(tiny_model_dir, prefix_sharing=sharing, microbatch_tokens=microbatch_tokens)
    got, metrics = gradients(engine, datums, tmp_path)
    expected, loss = reference_gradients(tiny_model_dir, datums)
    assert_equal(expected, got)
    assert metrics.loss == pytest.approx(loss, abs=1e-5)
    norm = torch.stack([value.norm() for value in expected.values()]).norm()
    assert metrics.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    assert metrics.clip_fraction > 0


@pytest.fixture(scope="module")
def episodes(tiny_model_dir: Path) -> list[Datum]:
    """Four episodes of three turns, two of them after the same words, turn after turn; off-policy."""
    engine, datums = make(tiny_model_dir), []
    contexts = [(*SYSTEM, 50 + i // 2, 51) for i in range(4)]
    for turn in range(3):
        requests = [SampleRequest(context, 1, 10 * turn + i) for i, context in enumerate(contexts)]
        for i, (completion,) in enumerate(engine.sample(requests, PARAMS)):
            sampler = tuple(value - 0.3 * (place % 3 - 1) for place, value in enumerate(completion.logprobs))
            advantage = (-1.0) ** (i + turn) * (1 + i / 8)
            datums.append(Datum(contexts[i], completion.tokens, sampler, advantage, 1 / (40 + i)))
            contexts[i] = (*contexts[i], *completion.tokens, 60 + turn, 30 + i, 65)
    return datums


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("microbatch_tokens", [1, 70, 4096])
def test_the_turns_of_an_episode_are_updated_in_one_sequence_with_the_gradient_of_the_plain_way(
    tiny_model_dir: Path, episodes: list[Datum], tmp_path: Path, sharing: bool, microbatch_tokens: int
) -> None:
    engine = make(tiny_model_dir, prefix_sharing=sharing, microbatch_tokens=microbatch_tokens)
    got, metrics = gradients(engine, episodes, tmp_path)
    expected, loss = reference_gradients(tiny_model_dir, episodes)
    assert_equal(expected, got, rounding=5e-6)
    assert metrics.loss == pytest.approx(loss, abs=1e-5)
    last = [len(datum.context_tokens) + len(datum.completion_tokens) - 1 for datum in episodes[8:]]
    if microbatch_tokens == 1:
        assert metrics.computed_tokens == sum(last), "one sequence an episode"
    elif sharing:
        assert metrics.computed_tokens < sum(last), "and what episodes share once"
    else:
        assert metrics.computed_tokens <= 4 * max(last), "but for the padding"


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_an_update_is_that_of_the_policy_at_the_rollouts_temperature(
    tiny_model_dir: Path, datums: list[Datum], tmp_path: Path, sharing: bool, temperature: float
) -> None:
    engine = make(tiny_model_dir, prefix_sharing=sharing, microbatch_tokens=40)
    loss = LossSettings(kl_coefficient=KL, temperature=temperature)
    got, metrics = gradients(engine, datums, tmp_path, loss)
    expected, value = reference_gradients(tiny_model_dir, datums, temperature)
    assert_equal(expected, got)
    assert metrics.loss == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("sharing", "temperature"), [(True, 1.0), (False, 0.6)])
def test_the_gradient_of_an_entropy_bonus_goes_through_the_whole_distribution(
    tiny_model_dir: Path, datums: list[Datum], tmp_path: Path, sharing: bool, temperature: float
) -> None:
    engine = make(tiny_model_dir, prefix_sharing=sharing, microbatch_tokens=40)
    loss = LossSettings(kl_coefficient=KL, temperature=temperature, entropy_coefficient=0.5)
    got, metrics = gradients(engine, datums, tmp_path, loss)
    expected, value = reference_gradients(tiny_model_dir, datums, temperature, bonus=0.5)
    assert_equal(expected, got)
    assert metrics.loss == pytest.approx(value, abs=1e-5)
    without, _ = reference_gradients(tiny_model_dir, datums, temperature)
    assert max(float((expected[name] - without[name]).abs().max()) for name in expected) > 0.01


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("temperature", [0.3, 0.6, 1.0, 1.7])
def test_the_ratio_of_a_fresh_rollout_is_1_at_every_temperature(
    tiny_model_dir: Path, sharing: bool, temperature: float
) -> None:
    engine = make(tiny_model_dir, prefix_sharing=sharing)
    groups = engine.sample(REQUESTS, SamplingParams(10, temperature))
    flat = [(r.context_tokens, c) for r, group in zip(REQUESTS, groups, strict=True) for c in group]
    fresh = [Datum(context, c.tokens, c.logprobs, 1.0, 0.01) for context, c in flat]
    one_by_one = [
        make(tiny_model_dir, prefix_sharing=sharing).train_step(
            [datum], LossSettings(kl_coefficient=KL, temperature=temperature), 1e-30
        )
        for datum in fresh
    ]
    for metrics in one_by_one:
        assert metrics.ratio_max == pytest.approx(1.0, abs=1e-5)
        assert metrics.ratio_mean == pytest.approx(1.0, abs=1e-5)
        assert metrics.kl_penalty == pytest.approx(0.0, abs=1e-9)  # the base, too, is taken at this temperature


def test_updates_stay_together_over_several_steps(tiny_model_dir: Path, datums: list[Datum]) -> None:
    engines = [make(tiny_model_dir, microbatch_tokens=budget) for budget in (1, 4096)]
    engines.append(make(tiny_model_dir, prefix_sharing=False))
    for engine in engines:
        for _ in range(3):
            engine.train_step(datums, LOSS, learning_rate=1e-4)
    one, *others = [engine.model.state_dict() for engine in engines]
    start = AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict()
    moved = max(float((value - start[name]).abs().max()) for name, value in one.items())
    assert moved > 1e-4
    for other in others:
        assert max(float((value - other[name]).abs().max()) for name, value in one.items()) < 1e-2 * moved


def test_prefix_sharing_changes_no_completion_and_no_measurement(tiny_model_dir: Path) -> None:
    shared, plain = make(tiny_model_dir), make(tiny_model_dir, prefix_sharing=False)
    for params in (PARAMS, SamplingParams(10, temperature=0.6, top_p=0.95), SamplingParams(6, temperature=0.0)):
        for left, right in zip(shared.sample(REQUESTS, params), plain.sample(REQUESTS, params), strict=True):
            assert [c.tokens for c in left] == [c.tokens for c in right]
            for a, b in zip(left, right, strict=True):
                assert list(a.logprobs) == pytest.approx(list(b.logprobs), abs=1e-5)
    sequences = [TokenSequence(context, (70, 71, 72)) for context in CONTEXTS]
    for a, b in zip(shared.logprobs(sequences), plain.logprobs(sequences), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("slow", [{"sample_rows": 1}, {"sample_rows": 3}, {"microbatch_tokens": 1}])
def test_the_size_of_sampling_batches_changes_no_completion(tiny_model_dir: Path, slow: dict[str, int]) -> None:
    expected = make(tiny_model_dir).sample(REQUESTS, PARAMS)
    got = make(tiny_model_dir, **slow).sample(REQUESTS, PARAMS)
    assert [[c.tokens for c in group] for group in got] == [[c.tokens for c in group] for group in expected]


def trie_size(sequences: Sequence[Sequence[int]]) -> int:
    return len({tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))})


def steps_of(groups: Sequence[Sequence[Any]]) -> int:
    """Tokens that a decoder must feed back: all but the last of every completion, and none of a row that has ended."""
    return sum(len(completion.tokens) - 1 for group in groups for completion in group)


def test_sampling_computes_each_shared_prefix_once_and_no_finished_row(tiny_model_dir: Path) -> None:
    engine = make(tiny_model_dir)
    again = [*REQUESTS, SampleRequest(CONTEXTS[0], 3, seed=9)]  # a context that comes twice
    groups = engine.sample(again, PARAMS)
    lengths = {len(completion.tokens) for group in groups for completion in group}
    assert len(lengths) > 2  # rows did finish at different times
    assert engine.sampler.computed_tokens == trie_size(CONTEXTS) + steps_of(groups)
    assert trie_size(CONTEXTS) == 20 + 2 + 2 + 1 + 1
    assert engine.sampler.sampled_tokens == sum(len(completion.tokens) for group in groups for completion in group)


def test_without_sharing_each_distinct_context_is_still_computed_once(tiny_model_dir: Path) -> None:
    engine = make(tiny_model_dir, prefix_sharing=False)
    groups = engine.sample([*REQUESTS, SampleRequest(CONTEXTS[0], 3, seed=9)], PARAMS)
    assert engine.sampler.computed_tokens == len(CONTEXTS) * max(map(len, CONTEXTS)) + steps_of(groups)


def test_an_update_computes_each_shared_prefix_once(tiny_model_dir: Path, datums: list[Datum]) -> None:
    inputs = [(*datum.context_tokens, *datum.completion_tokens[:-1]) for datum in datums]
    metrics = make(tiny_model_dir).train_step([*datums, *datums], LOSS, 1e-4)
    assert metrics.computed_tokens == trie_size(inputs) < sum(map(len, inputs))
    assert metrics.tokens == 2 * sum(len(datum.completion_tokens) for datum in datums)
    plain = make(tiny_model_dir, prefix_sharing=False, microbatch_tokens=1).train_step(datums, LOSS, 1e-4)
    assert plain.computed_tokens == sum(map(len, inputs))


def test_a_repeated_datum_counts_twice(tiny_model_dir: Path, datums: list[Datum], tmp_path: Path) -> None:
    once, _ = gradients(make(tiny_model_dir), datums, tmp_path / "once")
    twice, _ = gradients(make(tiny_model_dir), [*datums, *datums], tmp_path / "twice")
    assert_equal({name: 2 * value for name, value in once.items()}, twice)
