"""Arms by hand: one curve of two phases, the levels, the pairs by seed, the KL at one accuracy under each prompt."""

import math
from pathlib import Path
from typing import Any, cast

import pytest

from fastslow.experiments import arm_tables
from fastslow.experiments.arm_tables import arms_section
from fastslow.experiments.arms import arm_curves
from fastslow.experiments.records import Line
from fastslow.experiments.sections import rates, under_both_prompts


def point(step: int, rollouts: int, own: float, seed: float, kl: float = 0.1, seed_kl: float = 0.2) -> dict[str, float]:
    return {
        "step": step, "rollouts": rollouts, "seconds": float(step), "val/mean@4": own, "val/seed_prompt/mean@4": seed,
        "kl/base": kl, "kl/seed_prompt/base": seed_kl,
        "kl/base_completion": 8 * kl, "kl/seed_prompt/base_completion": 20 * seed_kl,
    }  # fmt: skip


def line(
    arm: str, seed: int, curve: list[dict[str, float]], *, phase: int = 1, tested: tuple[float, float] = (0.5, 0.25)
) -> Line:
    last = curve[-1]
    totals = {"steps": last["step"], "sampled": last["rollouts"], "seconds": last["seconds"], "sampled_gepa": 10}
    totals |= {"evolve_s": 1.0, "sample_s": last["seconds"] - 3.0, "update_s": 2.0}
    measures = {
        "own prompt": {"mean": tested[0], "mean_interval": [0, 1], "problems": 2, "kl": {"mean": 0.125, "tokens": 16}},
        "seed prompt": {"mean": tested[1], "mean_interval": [0, 1], "problems": 2, "kl": {"mean": 0.5, "tokens": 40}},
    }
    made: Any = {
        "part": f"{arm}-{seed}-{phase}", "labels": {"arm": arm, "phase": phase, "seed": seed}, "settings": {},
        "start": None,
        "interrupted": False, "curve": curve, "totals": totals, "prompt": "p", "measures": measures,
    }  # fmt: skip
    return cast(Line, made)


RISE = [point(0, 0, 0.0, 0.0), point(5, 100, 0.8, 0.1), point(10, 200, 1.0, 0.5)]
FST = [line("fst", seed, RISE, tested=(0.75 + seed / 8, 0.25)) for seed in (0, 1)]
TWO = [
    line("rl-prompt", 0, [point(0, 0, 0.0, 0.0), point(10, 150, 0.5, 0.5, kl=0.3)], phase=1),
    line("rl-prompt", 0, [point(0, 0, 0.5, 0.5, kl=0.0), point(1, 50, 0.75, 0.5, kl=0.0)], phase=2, tested=(0.5, 0.5)),
]


def test_the_phases_of_an_arm_are_one_curve() -> None:
    curves = arm_curves([*FST, *TWO], ["fst", "rl-prompt", "rl"])
    assert set(curves) == {"fst", "rl-prompt"} and set(curves["fst"]) == {0, 1}
    joined = curves["rl-prompt"][0]
    assert [(p["step"], p["rollouts"], p["seconds"]) for p in joined] == [(0, 0, 0.0), (10, 150, 10.0), (11, 200, 11.0)]
    assert joined[1]["kl/base"] == 0.3 and math.isnan(joined[2]["kl/base"])
    assert math.isnan(joined[2]["kl/seed_prompt/base"])


def test_an_arm_whose_second_phase_has_not_ended_is_left_out() -> None:
    assert arm_curves(TWO[:1], ["rl-prompt"]) == {}


def test_under_a_prompt_of_the_first_phase_nothing_is_said_of_the_tasks_own() -> None:
    phases = [line("prompt-rl", 0, TWO[0]["curve"][:2], phase=1), line("prompt-rl", 0, TWO[1]["curve"], phase=2)]
    joined = arm_curves(cast(list[Line], phases), ["prompt-rl"])["prompt-rl"][0]
    assert "val/seed_prompt/mean@4" in joined[1] and "val/seed_prompt/mean@4" not in joined[2]
    assert joined[2]["kl/base"] == 0.0


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    picture = tmp_path_factory.mktemp("arms") / "arms.png"
    made = "\n".join(arms_section([*FST, *TWO], ["fst", "rl-prompt"], 200, picture))
    assert picture.is_file()
    return made


@pytest.mark.parametrize(
    "row",
    [
        # The end: the last evaluations after the start, three at most; the test split under both prompts.
        "| FST | 2 | 0.900 | 0.812 | 0.250 |",
        "| RL, then GEPA | 1 | 0.625 | 0.500 | 0.500 |",
        # The KL there, a token and a completion of 8 and of 20 tokens.
        "| FST | 0.125 | 1.000 | 0.500 | 10.000 |",
        # 95 % of 0.9.
        "| FST | 2 of 2 | 200 | 10.0 |",
        "| RL, then GEPA | 0 of 1 | never | never |",
        # Seed 0 alone is paired: 0.5 - 0.75, and 0.5 - 0.25.
        "| RL, then GEPA | 1 | -0.250 | 0.250 |",
        "| RL, then GEPA | 0.000 | 0.000 | 0.000 | 0.000 |",
        # Both phases together: 150 and 50 rollouts, 10 and 1 seconds, with 1 of the search and 2 of the update in each.
        "| RL, then GEPA | 200 | 2 | 5 | 4 | 11 |",
        # Half, three quarters and nine tenths of 0.9: own, and under the seed prompt, which reaches 0.5 at the end.
        "| FST | 0.100 | 0.100 | 0.100 | 0.200 | never | never |",
        "| RL, then GEPA | 0.300 | - | never | 0.200 | never | never |",
        "| FST | 0.800 | 0.800 | 0.800 | 4.000 | never | never |",
    ],
)
def test_the_tables_by_hand(text: str, row: str) -> None:
    assert row in text


def test_where_nothing_scores_nobody_reaches_a_level(tmp_path: Path) -> None:
    """A level of 0 would be reached by every arm, before its first step."""
    flat = line("fst", 0, [point(0, 0, 0.0, 0.0), point(5, 100, 0.0, 0.0)], tested=(0.0, 0.0))
    text = "\n".join(arms_section([flat], ["fst"], 200, tmp_path / "arms.png"))
    assert "there is no level to reach" in text
    assert "seeds that reach it" not in text and "1 of 1" not in text
    assert "| FST | 1 | 0.000 | 0.000 | 0.000 |" in text and "| FST | 100 | 1 | 2 | 2 | 5 |" in text


def test_the_kl_of_a_completion_is_taken_as_measured_where_it_was(tmp_path: Path) -> None:
    made = line("fst", 0, RISE)
    kl = made["measures"]["own prompt"]["kl"]
    made["measures"]["own prompt"]["kl"] = {**kl, "per_completion": 3.0} if kl else None
    before = line("fst", 1, [{key: value for key, value in each.items() if "completion" not in key} for each in RISE])
    text = "\n".join(arms_section([made], ["fst"], 200, tmp_path / "arms.png"))
    assert "| FST | 0.125 | 3.000 | 0.500 | 10.000 |" in text
    text = "\n".join(arms_section([before], ["fst"], 200, tmp_path / "arms.png"))
    assert "| FST | - | - | - | - | never | never |" in text, "curves of before have no such figure"


def test_the_plot_shows_the_kl_of_whole_answers_where_every_arm_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[list[str]] = []
    monkeypatch.setattr(arm_tables, "draw", lambda curves, axes, title, path: panels.append([y for _, (y, _) in axes]))
    before = line("fst", 1, [{key: value for key, value in each.items() if "completion" not in key} for each in RISE])
    for lines in ([line("fst", 0, RISE)], [line("fst", 0, RISE), before]):
        arms_section(lines, ["fst"], 200, tmp_path / "arms.png")
    assert [len(drawn) for drawn in panels] == [3, 2]
    assert panels[0][-1] == "KL to the start, nats a completion"


def test_options_are_compared_under_both_prompts() -> None:
    rows = under_both_prompts({"as it is": FST})
    # 0.9 under the own prompt at 200 rollouts, 0.5 under the seed prompt at 200.
    assert [row for row in rows if "as it is" in row] == [
        "| as it is | 0.900 | 0.100 | 200 |",
        "| as it is | 0.300 | 0.200 | 200 |",
        "| as it is | 2 | 200 | 10 | 10.0 |",
    ]


def test_the_best_rate_is_chosen_where_the_search_can_tell_and_it_has_a_cost() -> None:
    lines = []
    for label, own in (("1e-4", 0.4), ("1e-3", 0.9)):
        for seed in (100, 101):
            made = line("fst", seed, [point(0, 0, 0.0, 0.0), point(10, 200, own, 0.0)])
            made["labels"] = {"method": "fst", "value": label, "seed": seed}
            lines.append(made)
    rows = rates({"fst": lines}, "slow.learning_rate")
    assert "| FST | 0.200 | 0.450 | 1e-3 | 800 | 40 |" in rows
    assert "`--method-set fst:slow.learning_rate=1e-3`" in rows
