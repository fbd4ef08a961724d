import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.plan import commonest_answer, count_parameters, describe, estimate_run
from fastslow.slow.local.engine import LocalEngine
from fastslow.types import Problem

from runs import small_config
from toy import LettersTask


def test_parameters_are_counted_without_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run")
    real = LocalEngine(config.model, threads=1).model
    total = sum(parameter.numel() for parameter in real.parameters())
    # The tiny model's head is a matrix of its own, so its embedding is looked up and never multiplied with.
    assert count_parameters(config) == (total, total - real.get_input_embeddings().weight.numel())


def test_the_estimate_by_hand(tiny_model_dir: Path, tmp_path: Path) -> None:
    # 6 steps of 3 x 4 rollouts, 3 cycles of 24 metric calls; at steps 0, 3 and 6, 4 x 2 + 2 rollouts to evaluate.
    config = small_config(tiny_model_dir, tmp_path / "run")
    estimate = estimate_run(config, parameters=1000, context_tokens=12.0, flops_per_s=1e6)
    assert (estimate.steps, estimate.cycles, estimate.rollouts, estimate.evaluation_rollouts) == (6, 3, 144, 30)
    # Contexts of 12 tokens: 3 problems x 2 prompts a step, 24 pairs a cycle, 4 + 2 an evaluation.
    # Completions of 8 tokens.
    assert estimate.sampled_tokens == 12 * (6 * 6 + 3 * 24 + 3 * 6) + 8 * (144 + 30)
    # 2 FLOPs to sample a token, 6 + 2 (KL penalty) to learn from it.
    assert estimate.flops == 1000 * (2 * estimate.sampled_tokens + 8 * (12 * 6 * 6 + 8 * 72))
    assert estimate.seconds == pytest.approx(estimate.flops / 5e5)


def test_the_estimate_of_distillation_by_hand(tiny_model_dir: Path, tmp_path: Path) -> None:
    # 2 cycles of 24 metric calls, then 4 steps of 3 x 4 rollouts, each problem under the seed prompt alone.
    config = small_config(tiny_model_dir, tmp_path / "run", method="distill", distill={"cycles": 2})
    estimate = estimate_run(config, parameters=1000, context_tokens=12.0, flops_per_s=1e6)
    assert (estimate.steps, estimate.cycles, estimate.rollouts, estimate.evaluation_rollouts) == (6, 2, 96, 30)
    assert estimate.sampled_tokens == 12 * (4 * 3 + 2 * 24 + 3 * 6) + 8 * (96 + 30)
    # 6 FLOPs to learn from a token, 2 for the teacher.
    assert estimate.flops == 1000 * (2 * estimate.sampled_tokens + 8 * (12 * 4 * 3 + 8 * 48))
    given = small_config(tiny_model_dir, tmp_path / "run", method="distill", distill={"prompt": "Be brief."})
    estimate = estimate_run(given, 1000, 12.0, 1e6)
    assert (estimate.steps, estimate.cycles, estimate.rollouts) == (6, 0, 72)


@pytest.mark.parametrize(
    ("method", "budget", "expected"),
    [
        ("distill", 60, (3, 2, 60)), ("distill", 20, (1, 1, 24)), ("prompt", 60, (3, 3, 72)), ("rl", 30, (3, 2, 36)),
        ("fst", 48, (2, 1, 48)),
    ],
)  # fmt: skip
def test_a_budget_of_rollouts_ends_the_estimate(
    tiny_model_dir: Path, tmp_path: Path, method: str, budget: int, expected: tuple[int, int, int]
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", method=method, distill={"cycles": 2}, max_rollouts=budget)
    estimate = estimate_run(config, 1000, 12.0, 1e6)
    assert (estimate.steps, estimate.cycles, estimate.rollouts) == expected


@pytest.mark.parametrize(("method", "rollouts"), [("rl", 72), ("prompt", 144)])
def test_each_method_counts_its_own_rollouts(tiny_model_dir: Path, tmp_path: Path, method: str, rollouts: int) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", method=method)
    assert estimate_run(config, 1000, 12.0, 1e6).rollouts == rollouts


def test_the_recipe_in_words(tiny_model_dir: Path, tmp_path: Path) -> None:
    text = describe(small_config(tiny_model_dir, tmp_path / "run"))
    for phrase in (
        "clamped to [0, 4] (absolute)",
        "3 problems x 4 rollouts = 12 rollouts, 2 under each of 2 prompts",
        "gepa every 2 steps: at most 24 metric calls",
        "12 train, 4 validation, 2 test problems",
        "seed prompt, system: 'go'",
    ):
        assert phrase in text
    assert not (tmp_path / "run").exists()


class AnsweredTask(LettersTask):
    """The letters, with these for the training problems' reference answers."""

    def __init__(self, answers: Sequence[str | None]) -> None:
        super().__init__(train=len(answers))
        self.answers = dict(zip([problem.id for problem in self.problems("train")], answers, strict=True))

    def reference(self, problem: Problem) -> str | None:
        return self.answers[problem.id]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["1"] * 6 + ["2"] * 2 + ["3"] * 2, ["always answering '1' is right on 60% of training problems"]),
        (["1"] * 3 + [str(n) for n in range(2, 9)], ["always answering '1' is right on 30% of training problems"]),
        (["1"] * 2 + [str(n) for n in range(2, 10)], []),
        (["1"] * 2 + ["2"] + [None] * 7, []),  # the share is of all problems: who knows what is right on the others
        ([None] * 10, []),
        (["1"] * 10, []),  # a task of one answer has no shortcut
    ],
)
def test_a_dry_run_says_what_one_answer_to_everything_is_worth(answers: list[str | None], words: list[str]) -> None:
    found = commonest_answer(AnsweredTask(answers))
    assert len(found) == len(words) and all(line.startswith(begin) for line, begin in zip(found, words, strict=True))


def test_the_recipe_of_distillation_in_words(tiny_model_dir: Path, tmp_path: Path) -> None:
    settings = {"method": "distill", "distill": {"cycles": 2}}
    text = describe(small_config(tiny_model_dir, tmp_path / "run", **settings))
    for phrase in (
        "3 problems x 4 rollouts = 12 rollouts of the student, who has the seed prompt; one update",
        "teacher: the base weights under the best prompt that the search finds",
        "KL(student || teacher) over the full vocabulary",
        "gepa in each of the first 2 steps, weights frozen: at most 24 metric calls",
        "mean@2 and best@2 of the seed prompt",
    ):
        assert phrase in text
    assert "advantage" not in text
    (tmp_path / "prompt.txt").write_text("Be brief.\n", encoding="utf-8")
    settings["distill"] = {"prompt": f"@{tmp_path / 'prompt.txt'}"}
    text = describe(small_config(tiny_model_dir, tmp_path / "run", **settings))
    assert "teacher: the base weights under system: 'Be brief.'" in text
    assert "frozen: the teacher's prompt is given" in text


def test_the_memory_of_a_run_is_known_without_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    slow = {"memory_gib": 0.02, "activation_checkpointing": True}
    config = small_config(tiny_model_dir, tmp_path / "run", slow=slow, evaluation={"every": 0})
    (line,) = [line for line in describe(config).splitlines() if line.strip().startswith("memory:")]
    plan = LocalEngine(config.model, config.slow, threads=1).policy.memory()
    assert plan is not None
    longest = int(line.split("with a sequence of ")[1].split()[0])
    said, real = int(line.split("hold passes of ")[1].split()[0]), plan.tokens(longest, 2**24)
    assert said == pytest.approx(real, rel=0.01)


def test_a_budget_that_is_too_small_is_refused_dry_and_before_a_run_begins(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"memory_gib": 0.0001})
    for begin in (describe, train):
        with pytest.raises(ConfigError, match=r"slow.memory_gib: 0.0001 GiB do not hold an update on one sequence"):
            begin(config)
    assert not (tmp_path / "run").exists()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.name: .*nowhere"):
        describe(small_config(tmp_path / "nowhere", tmp_path / "run"))


def test_what_reflection_may_take_is_estimated_by_hand(tiny_model_dir: Path, tmp_path: Path) -> None:
    proposer = {
        "kind": "openai", "model": "x", "base_url": "http://127.0.0.1:1/v1", "max_tokens": 500,
        "usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0,
    }  # fmt: skip
    config = small_config(tiny_model_dir, tmp_path / "run", fast={"proposer": proposer})
    text = describe(config)
    # 24 calls a cycle, 6 anchors. One seed leaves 18, for a child of 3 problems each: 6. Two seeds leave 12:
    # 2 on all anchors.
    found = re.search(
        r"reflection: 2 to 6 calls a cycle, up to 18 in 3 cycles.* reads up to about (\d+) tokens and writes up", text
    )
    assert found is not None, text
    read = int(found[1])
    # The tokenizer has a token for each character, so that tokens are characters.
    assert 1500 < read < 4000
    usd = 18 * (read * 2 + 500 * 10) / 1e6
    assert f"{18 * read / 1e6:.2f} M tokens read and 0.01 M written: up to {usd:.2f} USD (the config's prices)" in text
    unknown = {name: value for name, value in proposer.items() if not name.startswith("usd")}
    text = describe(small_config(tiny_model_dir, tmp_path / "run", fast={"proposer": unknown}))
    assert "USD" not in text.replace("usd_", "")
    assert "the price is not known: give fast.proposer.usd_per_million_input_tokens" in text


def test_a_proposer_without_a_model_has_nothing_to_estimate(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert "reflection:" not in describe(small_config(tiny_model_dir, tmp_path / "run"))


def test_memory_is_estimated_from_shapes_without_a_budget(tiny_model_dir: Path, tmp_path: Path) -> None:
    text = describe(small_config(tiny_model_dir, tmp_path / "run", slow={"microbatch_tokens": 4096}))
    found = re.search(
        r"up to ([\d.]+) GiB in an update with passes of 4096 tokens .* up to ([\d.]+) GiB while 128 comp", text
    )
    assert found is not None, text
    assert 0.0 <= float(found[2]) <= float(found[1]) < 1.0
    assert float(found[1]) > 0.0
    assert "GiB in an update" not in describe(small_config(tiny_model_dir, tmp_path / "run", method="prompt"))


def test_a_merge_without_components_is_said_to_be_useless(tiny_model_dir: Path, tmp_path: Path) -> None:
    words = "one component, so that there is nothing to merge"
    assert words in describe(small_config(tiny_model_dir, tmp_path / "run", fast={"use_merge": True}))
    assert words not in describe(small_config(tiny_model_dir, tmp_path / "run"))


def test_a_dry_run_does_not_wait_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    tinker = {"base_url": "http://127.0.0.1:9", "backend": "jax"}
    overrides = {"engine": "tinker", "tinker": tinker, "model": {"name": "some/model", "lora": {"rank": 4}}}
    config = small_config(Path("some/model"), tmp_path / "run", **overrides)
    assert config.tinker is not None
    assert config.tinker.connect_timeout_s == 30.0
    with pytest.raises(ConfigError, match=r"no server answers at http://127.0.0.1:9 within 3 s"):
        describe(config)
