"""The gradient under the seed prompt: which datums an update gets, by hand, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.bare import bare_datums, check_bare, describe_bare
from fastslow.slow.engine import Datum
from fastslow.slow.settings import SlowConfig

from runs import small_config

SAMPLED = (0.5, 0.4, 0.8, 0.1)


def logs(*probs: float) -> tuple[float, ...]:
    return tuple(math.log(prob) for prob in probs)


DATUM = Datum((7, 8), (1, 2, 3, 4), logs(*SAMPLED), 2.0, 0.25)


def slow(**options: Any) -> SlowConfig:
    return SlowConfig(gradient_context="bare", **options)


def test_the_denominator_is_the_learner_before_the_update() -> None:
    learner = logs(0.25, 0.4, 0.4, 0.3)
    (made,), gap = bare_datums([DATUM], [learner], slow())
    assert (made.context_tokens, made.completion_tokens) == ((7, 8), (1, 2, 3, 4))
    assert made.sampler_logprobs == learner and (made.advantage, made.token_weight) == (2.0, 0.25)
    assert not made.fresh  # two contexts are no mismatch of sampler and learner
    # Ratios 0.5, 1, 0.5 and 3.
    assert (gap.ratio_mean, gap.ratio_max, gap.left_out) == (pytest.approx(1.25), pytest.approx(3.0), 0.0)
    k3 = (2 * (0.5 + math.log(2) - 1) + 0 + (3 - math.log(3) - 1)) / 4
    assert gap.kl == pytest.approx(k3)


def test_tokens_outside_the_bounds_become_context_of_what_follows() -> None:
    learner = logs(0.5, 0.4 * 0.009, 0.8, 0.1 * 11)
    made, gap = bare_datums([DATUM], [learner], slow())
    assert [(d.context_tokens, d.completion_tokens) for d in made] == [((7, 8), (1,)), ((7, 8, 1, 2), (3,))]
    assert [d.sampler_logprobs for d in made] == [learner[:1], learner[2:3]]
    assert {d.token_weight for d in made} == {0.25}
    assert gap.left_out == 0.5


@pytest.mark.parametrize(("factor", "kept"), [(0.02, 4), (0.005, 3), (9.0, 4), (12.0, 3)])
def test_the_bounds_are_those_of_seed_prompt_over_evolved_prompt(factor: float, kept: int) -> None:
    learner = (*logs(*SAMPLED[:3]), math.log(0.1 * factor))
    made, _ = bare_datums([DATUM], [learner], slow())
    assert sum(len(datum.completion_tokens) for datum in made) == kept


def test_a_lower_bound_of_zero_leaves_out_nothing_below() -> None:
    made, gap = bare_datums([DATUM], [(-300.0,) * 4], slow(bare_bounds=(0.0, 10.0)))
    assert made[0].completion_tokens == (1, 2, 3, 4) and gap.left_out == 0.0


def test_a_completion_of_which_nothing_is_left_has_no_datum() -> None:
    made, gap = bare_datums([DATUM], [(-30.0,) * 4], slow())
    assert made == [] and gap.left_out == 1.0


def test_the_ratio_to_the_sampler_keeps_its_log_probabilities_and_every_token() -> None:
    made, gap = bare_datums([DATUM], [(-30.0,) * 4], slow(bare_behaviour="sampler"))
    assert [d.sampler_logprobs for d in made] == [DATUM.sampler_logprobs] and not made[0].fresh
    assert gap.left_out == 0.0 and gap.ratio_max < 1e-11


def test_without_datums_nothing_is_known() -> None:
    made, gap = bare_datums([], [], slow())
    assert made == [] and math.isnan(gap.kl) and math.isnan(gap.ratio_mean)


def config(**sections: Any) -> Config:
    return small_config(Path("model"), Path("run"), **sections)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow": {"bare_bounds": [0.1, 10.0]}}, "slow.bare_bounds: .* is for the gradient under the seed prompt"),
        ({"slow": {"bare_behaviour": "sampler"}}, "slow.bare_behaviour: 'sampler' is for the gradient"),
        ({"slow": {"bare_member": True}}, "slow.bare_member: True is for the gradient"),
        ({"slow": {"gradient_context": "bare"}, "sampling": {"temperature": 0.7}}, "sampling.temperature: 0.7 with"),
        ({"slow": {"gradient_context": "bare", "mismatch_correction": "mask"}}, "slow.mismatch_correction: 'mask'"),
        ({"slow": {"gradient_context": "bare", "bare_bounds": [1.5, 2.0]}}, "0 <= lower < 1 < upper"),
        ({"slow": {"gradient_context": "bare", "bare_bounds": [0.5, 1.0]}}, "0 <= lower < 1 < upper"),
        (
            {"slow": {"gradient_context": "bare", "bare_behaviour": "sampler", "bare_bounds": [0.5, 2.0]}},
            "clipped by the loss",
        ),
        (
            {"slow": {"gradient_context": "bare", "bare_member": True}, "loop": {"population_size": 1}},
            "slow.bare_member: true gives the population's last place",
        ),
        (
            {"slow": {"gradient_context": "bare", "bare_member": True}, "fast": {"scores": "rollouts"}},
            "slow.bare_member: true takes the population's last place, where",
        ),
    ],
)
def test_what_would_mean_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_bare(config(**options), reinforces=True, searches=True)


@pytest.mark.parametrize(("reinforces", "searches"), [(True, False), (False, True)])
def test_a_method_without_a_policy_loss_or_a_search_is_refused(reinforces: bool, searches: bool) -> None:
    with pytest.raises(ConfigError, match=r"slow.gradient_context: 'bare' needs a policy loss and prompts that evolve"):
        check_bare(config(slow={"gradient_context": "bare"}), reinforces=reinforces, searches=searches)


def test_what_holds_passes_and_is_said() -> None:
    check_bare(config(), reinforces=False, searches=False)
    check_bare(config(slow={"gradient_context": "bare", "bare_member": True}), reinforces=True, searches=True)
    assert describe_bare(SlowConfig()) == []
    assert "0.01 to 10 times" in describe_bare(slow())[0]
    assert "sampler under the evolved prompt" in describe_bare(slow(bare_behaviour="sampler"))[0]
