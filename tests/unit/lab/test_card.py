"""The weights that are shipped are the ones that the card describes, and do what it says. Measured again, in part."""

import json
import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fastslow.lab import card, rules
from fastslow.lab.corpus import phrases
from fastslow.lab.pretrain import Recipe
from fastslow.lab.tasks import WORLDS, LabTask, right_prompts
from fastslow.resources import resolve_path
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.slow.engine import PolicyEngine

MODEL = Path(str(resources.files("fastslow.lab").joinpath("model")))


@cache
def shipped() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((MODEL / card.CARD).read_text(encoding="utf-8"))
    return record


@cache
def engine() -> PolicyEngine:
    return card.load(MODEL)


def near(measured: float, expected: float, count: int) -> bool:
    """Within four standard errors of a share of `count`, and one more answer."""
    share = min(max(expected, 0.01), 0.99)
    return abs(measured - expected) <= 4 * math.sqrt(share * (1 - share) / count) + 1 / count


def test_the_files_are_those_of_the_card_and_small_enough() -> None:
    assert card.file_hash(MODEL / card.WEIGHTS) == shipped()["sha256"]
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 10e6
    assert (MODEL / "README.md").read_text(encoding="utf-8") == card.card_text(shipped())
    assert shipped()["recipe"] == vars(Recipe())
    book = json.loads((MODEL / card.PHRASEBOOK).read_text(encoding="utf-8"))
    assert book == {"phrases": list(phrases()), "synonyms": card.SYNONYMS}
    assert resolve_path("package:fastslow.lab/model", "model.name") == str(MODEL)


LOW, VERY_LOW, ZERO = (0.006, 0.03), (0.0, 0.003), (0.0, 0.0)
FLOORS = {"amber": LOW, "birch": LOW, "cedar": LOW, "dogwood": VERY_LOW, "elm": VERY_LOW, "fir": ZERO, "ginkgo": ZERO}


@pytest.mark.parametrize("name", FLOORS)
def test_the_floor_of_a_task_is_what_the_task_is_there_for(name: str) -> None:
    lowest, highest = FLOORS[name]
    row = shipped()["tasks"][name]
    assert lowest <= row["floor"] <= highest
    assert (row["floor_low"], row["floor_high"]) == card.wilson_interval(
        round(row["floor"] * row["floor_samples"]), row["floor_samples"]
    )
    assert row["right_prompt"] > 20 * row["floor"]


def test_dogwood_is_below_a_tenth_of_a_percent_and_elm_above_dogwood() -> None:
    floors = {name: row["floor"] for name, row in shipped()["tasks"].items()}
    assert floors["dogwood"] < 0.001 and floors["dogwood"] < floors["elm"]


@pytest.mark.parametrize("name", rules.RULES)
def test_each_rule_is_followed_as_well_as_the_card_says(name: str) -> None:
    measured = card.rule_accuracy(engine(), name, problems=16)
    assert near(measured, shipped()["rules"][name], 48)


@pytest.mark.parametrize("name", WORLDS)
def test_each_task_has_the_accuracy_and_the_floor_of_the_card(name: str) -> None:
    row = shipped()["tasks"][name]
    samples = 512
    assert near(card.floor_successes(engine(), LabTask(name), samples) / samples, row["floor"], samples)
    measured = card.measure_task(engine(), name, 128)
    assert measured["right_prompt"] == pytest.approx(row["right_prompt"], abs=0.02)


def test_no_single_prompt_serves_both_slices_but_a_population_does() -> None:
    task = LabTask("hazel")
    problems = task.problems("validation")
    prompts = right_prompts(task.world)
    solved = {}
    for kind, prompt in prompts.items():
        requests = [RolloutRequest(problem, prompt, 1, index) for index, problem in enumerate(problems)]
        groups = make_rollouts(engine(), task, requests, card.AS_EVALUATED, "rl")
        solved[kind] = [group[0].reward or 0.0 for group in groups]
    alone = {kind: sum(rewards) / len(rewards) for kind, rewards in solved.items()}
    together = sum(map(max, *solved.values())) / len(problems)
    assert max(alone.values()) <= 0.5
    assert together > 1.5 * max(alone.values())
    both = "\n".join(line for prompt in prompts.values() for line in prompt.system.splitlines()[1:])
    requests = [
        RolloutRequest(problem, task.seed_prompt.replace("system", f"{rules.SEED_PROMPT}\n{both}"), 1, index)
        for index, problem in enumerate(problems)
    ]
    stated_both = make_rollouts(engine(), task, requests, card.AS_EVALUATED, "rl")
    assert sum(group[0].reward or 0.0 for group in stated_both) / len(problems) < max(alone.values())
