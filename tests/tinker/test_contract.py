"""The contract suite (`fastslow.testing.engines`) on the remote engine, and on the local one in the same settings. And:
on one adapter they agree.

The server computes in float32 with its own kernels, so log-probabilities agree within 1e-3.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.errors import ConfigError, ResumeError
from fastslow.slow.engine import Datum, DistillDatum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.slow.tinker.engine import TinkerEngine
from fastslow.testing.engines import CHECKS, EngineCase

from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow

MAX_TOKENS = 8
PARAMS = SamplingParams(MAX_TOKENS)
LOSS = LossSettings(kl_coefficient=0.0)
SLOW = SlowConfig(max_grad_norm=None)
TOLERANCE = 1e-3
REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 3, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest((50, 51), 2, seed=3),
]
# Seven rollouts of different lengths, given: neither engine sampled them.
GIVEN = [
    TokenSequence((10, 11, 12, 13, 14), (60, 61, 62, 1)),
    TokenSequence((10, 11, 12, 13, 14), (63, 1)),
    TokenSequence((20, 21), (70, 71, 72, 73, 74, 75, 1)),
    TokenSequence((20, 21), (76,)),
    TokenSequence((30, 31, 32), (80, 81, 1)),
]


def model_config(directory: Path) -> ModelConfig:
    return ModelConfig(name=str(directory), device="cpu", lora=LoraConfig(rank=4, alpha=32))


def remote_engine(server: SkyrlServer, **settings: Any) -> TinkerEngine:
    return TinkerEngine(model_config(server.model), SLOW, server.config(), seed=7, **settings)


@pytest.fixture(scope="module", params=["local", "tinker"])
def engine(request: pytest.FixtureRequest, server: SkyrlServer) -> Any:
    """An engine; the tests below train it in turn and rely on nothing that was before."""
    if request.param == "tinker":
        return remote_engine(server)
    return LocalEngine(model_config(server.model), SLOW, seed=7)


@pytest.fixture(scope="module", params=["local", "tinker"])
def case(request: pytest.FixtureRequest, server: SkyrlServer, tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    remote = request.param == "tinker"
    return EngineCase(
        lambda: remote_engine(server) if remote else LocalEngine(model_config(server.model), SLOW, seed=7),
        tmp_path_factory.mktemp("contract"), tolerance=TOLERANCE, exact=not remote, batch_free=not remote,
        distils=not remote, requests=REQUESTS,
    )  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check: Callable[[EngineCase], None], case: EngineCase) -> None:
    check(case)


def flat(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row])


def worst(a: list[list[float]], b: list[list[float]]) -> float:
    assert [len(row) for row in a] == [len(row) for row in b]
    return float((flat(a) - flat(b)).abs().max())


def datums_of(sampler: list[list[float]], sequences: list[TokenSequence]) -> list[Datum]:
    tokens = sum(len(sequence.completion_tokens) for sequence in sequences)
    return [
        Datum(s.context_tokens, s.completion_tokens, tuple(row), 1.0 if index % 2 else -1.0, (1 + index) / tokens)
        for index, (s, row) in enumerate(zip(sequences, sampler, strict=True))
    ]


def test_a_saved_engine_goes_on_as_if_nothing_had_been(engine: Any, server: SkyrlServer, tmp_path: Path) -> None:
    datums = datums_of(engine.logprobs(GIVEN), GIVEN)
    engine.train_step(datums, LOSS, 1e-3)
    engine.save(tmp_path / "saved", resumable=True)
    version, saved = engine.policy_version, engine.logprobs(GIVEN)
    engine.train_step(datums, LOSS, 1e-2)
    expected = engine.logprobs(GIVEN)
    engine.load(tmp_path / "saved")
    assert engine.policy_version == version
    assert worst(engine.logprobs(GIVEN), saved) < 1e-5
    engine.train_step(datums, LOSS, 1e-2)  # the optimiser's moments came back as well
    assert worst(engine.logprobs(GIVEN), expected) < 1e-4
    # What was saved opens on this machine, whoever wrote it.
    local = LocalEngine(model_config(server.model), SLOW, adapter=tmp_path / "saved")
    assert worst(local.logprobs(GIVEN), saved) < TOLERANCE


# -- the two engines on one adapter ------------------------------------------------------------------------------------


@dataclass
class Pair:
    local: LocalEngine
    remote: TinkerEngine


@pytest.fixture
def pair(server: SkyrlServer, tmp_path: Path) -> Iterator[Pair]:
    """Both engines with the adapter that the server has just initialised."""
    remote = remote_engine(server)
    remote.save(tmp_path / "fresh", resumable=False)
    yield Pair(LocalEngine(model_config(server.model), SLOW, adapter=tmp_path / "fresh"), remote)


@pytest.mark.parametrize(
    "loss",
    [
        LossSettings(kl_coefficient=0.0),
        LossSettings(kl_coefficient=0.5),
        LossSettings("dapo", 1.28, 0.0, floor=0.8),
        LossSettings("ppo", 1.05, 0.5, floor=0.95),
    ],
    ids=["cispo", "cispo with a penalty", "dapo", "ppo with a penalty"],
)
def test_log_probabilities_gradients_and_directions_agree(pair: Pair, loss: LossSettings) -> None:
    coefficient = loss.kl_coefficient
    before = [engine.logprobs(GIVEN) for engine in (pair.local, pair.remote)]
    assert worst(*before) < TOLERANCE
    # Off-policy on purpose: one rollout is clipped, and lengths and weights differ.
    sampler = [[value - (2.0 if index == 0 else 0.1 * index) for value in row] for index, row in enumerate(before[0])]
    datums = datums_of(sampler if not coefficient else before[0], GIVEN)
    steps = [engine.train_step(datums, loss, 1e-3) for engine in (pair.local, pair.remote)]
    assert steps[1].loss == pytest.approx(steps[0].loss, abs=TOLERANCE)
    assert steps[1].clip_fraction == pytest.approx(steps[0].clip_fraction)
    assert steps[1].grad_norm == pytest.approx(steps[0].grad_norm, rel=1e-2)
    after = [engine.logprobs(GIVEN) for engine in (pair.local, pair.remote)]
    moved = [flat(new) - flat(old) for new, old in zip(after, before, strict=True)]
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > 0.99
    assert float(moved[0].norm()) == pytest.approx(float(moved[1].norm()), rel=0.05)


def test_the_kl_estimate_agrees_with_the_exact_one_on_average(pair: Pair) -> None:
    datums = datums_of(pair.local.logprobs(GIVEN), GIVEN)
    for engine in (pair.local, pair.remote):
        for _ in range(3):
            engine.train_step(datums, LOSS, 3e-3)
    request = SampleRequest((10, 11, 12, 13, 14), 64, seed=5)
    (completions,) = pair.remote.sample([request], PARAMS)
    sequences = [TokenSequence(request.context_tokens, completion.tokens) for completion in completions]
    estimated, exact = (flat(engine.kl_to_base(sequences)).mean() for engine in (pair.remote, pair.local))
    assert float(estimated) == pytest.approx(float(exact), rel=0.5, abs=0.02)


# -- the server's own --------------------------------------------------------------------------------------------------


def test_the_base_alone_takes_no_adapter(server: SkyrlServer) -> None:
    base = remote_engine(server, train=False)
    local = LocalEngine(model_config(server.model), SLOW)
    assert worst(base.logprobs(GIVEN), local.logprobs(GIVEN, "base")) < TOLERANCE
    assert [len(group) for group in base.sample(REQUESTS, PARAMS)] == [3, 2, 2]


def test_a_rank_that_the_server_does_not_have_is_refused(server: SkyrlServer) -> None:
    model = model_config(server.model).model_copy(update={"lora": LoraConfig(rank=64)})
    with pytest.raises(
        ConfigError, match=r"model.lora.rank: .* with rank 64 cannot be trained there: .*between 1 and 8"
    ):
        TinkerEngine(model, SLOW, server.config())


def test_a_state_that_the_server_has_lost_is_named(server: SkyrlServer, tmp_path: Path) -> None:
    (tmp_path / "tinker.json").write_text(
        '{"state": "tinker://model_x/weights/y", "policy_version": 1}', encoding="utf-8"
    )
    with pytest.raises(ResumeError, match="does not give the state 'tinker://model_x/weights/y' back"):
        remote_engine(server).load(tmp_path)


def test_distillation_is_refused(server: SkyrlServer) -> None:
    with pytest.raises(ConfigError, match="method: 'distill'"):
        remote_engine(server, train=False).distill_step([DistillDatum((1,), (2,), (3,), 1.0)], 1e-3)
