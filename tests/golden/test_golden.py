"""Runs are what they were: bit for bit where the records were made, as far as draws allow it elsewhere."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cases import CASES, NAMES, config_tree
from record import RECORDS, machine, outcome, read_record, run_case

ANEW = "If results are meant to change, record them anew: python tests/golden/record.py"
SCHEDULED = ("step", "cycle", "slow/learning_rate")
"""What no draw decides."""


def differences(recorded: Any, now: Any, path: str = "") -> Iterator[str]:
    """Every value that is not the same to the last bit, with where it stands."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for key in sorted({*recorded, *now}):
            if key not in now or key not in recorded:
                yield f"{path}{key}: {'is missing' if key not in now else 'is new'}"
            else:
                yield from differences(recorded[key], now[key], f"{path}{key}.")
    elif isinstance(recorded, list) and isinstance(now, list):
        if len(recorded) != len(now):
            yield f"{path}: {len(recorded)} entries were recorded, there are {len(now)}"
        for index, (old, new) in enumerate(zip(recorded, now, strict=False)):
            yield from differences(old, new, f"{path}{index}.")
    elif recorded != now or type(recorded) is not type(now):
        yield f"{path.rstrip('.')}: {recorded!r} was recorded, {now!r} came out"


def turned(recorded: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first thing that arithmetic's last bits do not explain, such as a draw that turned on another processor."""
    for old, new in zip(recorded["metrics"], now["metrics"], strict=True):
        for name in sorted({*old, *new}):
            was, came = old.get(name), new.get(name)
            if was != came and not (isinstance(was, float) and came == pytest.approx(was, rel=1e-3, abs=1e-4)):
                return f"{name} of step {old['step']} was {was!r}, and is {came!r}"
    return None


def check(recorded: dict[str, Any], now: dict[str, Any], *, same_machine: bool) -> None:
    """Fail where `now` is not what was recorded; skip where another processor leaves no more to compare."""
    if same_machine:
        found = list(differences(recorded, now))
        if found:
            raise AssertionError("\n".join([*found[:20], f"{len(found)} values differ. {ANEW}"]))
        return
    schedule = [[[line.get(name) for name in SCHEDULED] for line in side["metrics"]] for side in (recorded, now)]
    assert schedule[1] == schedule[0], ANEW
    assert len(now["population"]["population"]) == len(recorded["population"]["population"]), ANEW
    reason = turned(recorded, now)
    if reason is not None:
        pytest.skip(f"recorded on another processor or library, where draws turn: {reason}; compared: steps and rates")
    assert now["weights"]["norm"] == pytest.approx(recorded["weights"]["norm"], rel=1e-4), ANEW


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_what_was_recorded(name: str, tmp_path: Path) -> None:
    record = read_record(name)
    now = json.loads(json.dumps(run_case(name, tmp_path)))
    check(record["outcome"], now, same_machine=record["machine"] == machine())


# -- the comparison itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("metrics", 1, "slow/loss"), 1e-7),
        (("metrics", 1, "rollouts/sampled"), 1),
        (("prompts", 0, "mean"), 0.125),
        (("population", "step"), 1),
        (("rollouts", "step_1", 0, "reward"), 1e-9),
        (("weights", "norm"), 1e-7),
    ],
)
def test_a_small_change_is_seen_where_it_was_recorded(where: tuple[Any, ...], value: float) -> None:
    recorded = read_record("fst")["outcome"]
    now = copy.deepcopy(recorded)
    node = now
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] += value
    with pytest.raises(AssertionError, match=rf"{where[-1]}: .*\n1 values differ. If results are meant to change"):
        check(recorded, now, same_machine=True)


def test_another_processor_may_move_the_last_bits_or_turn_a_draw_but_not_the_schedule() -> None:
    recorded = read_record("fst")["outcome"]
    now = copy.deepcopy(recorded)
    now["metrics"][1]["slow/loss"] *= 1 + 1e-6
    check(recorded, now, same_machine=False)
    now["metrics"][2]["rollouts/sampled_tokens"] += 3
    with pytest.raises(pytest.skip.Exception, match=r"rollouts/sampled_tokens of step 2 was \d+, and is"):
        check(recorded, now, same_machine=False)
    now["metrics"][3]["slow/learning_rate"] /= 2
    with pytest.raises(AssertionError, match="record them anew"):
        check(recorded, now, same_machine=False)


def test_the_arithmetic_is_the_same_every_time() -> None:
    assert machine() == machine()


# -- the records are worth something -----------------------------------------------------------------------------------


def records() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name in CASES:
        yield name, config_tree(name), read_record(name)["outcome"]


def total(result: dict[str, Any], metric: str) -> float:
    return sum(line.get(metric) or 0 for line in result["metrics"])


def test_every_run_has_a_record_and_every_record_a_run() -> None:
    assert {path.stem for path in RECORDS.glob("*.json")} == set(NAMES)


@pytest.mark.parametrize(("name", "tree", "result"), records())
def test_a_record_shows_what_its_run_is_there_for(name: str, tree: dict[str, Any], result: dict[str, Any]) -> None:
    method = tree.get("method", "fst")
    assert (total(result, "slow/grad_norm") > 0.1) == (method != "prompt")
    assert (result["metrics"][-1]["kl/base"] > 1e-5) == (method != "prompt")
    if method != "rl" and tree.get("distill", {}).get("prompt") is None:
        assert total(result, "fast/accepted") > 0
        assert any(line["parent"] is not None for line in result["prompts"])
    reuses = total(result, "rollouts/reused") > 0
    assert reuses == (tree["loop"].get("reuse_max_age") != 0 and method in ("fst", "prompt"))
    assert bool(result["library"]) == (tree["task"]["name"] == "stream")
    assert ("by_kind" in result["population"]) == ("kinds" in name and method in ("fst", "prompt"))


def test_one_record_has_a_prompt_of_its_own_for_each_kind() -> None:
    population = read_record("fst-kinds-each-its-own")["outcome"]["population"]
    assert len(set(population["by_kind"].values())) == 2
    assert set(population["by_kind"].values()) == {member["hash"] for member in population["population"]}


def test_what_was_recorded_is_everything_but_clocks(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step_2").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "time/step_s": 1.5, "kl/base": 0.0}\n', encoding="utf-8")
    (tmp_path / "rollouts").mkdir()
    result = outcome(tmp_path)
    assert result["metrics"] == [{"step": 0, "kl/base": 0.0}]
    assert set(result) == {"metrics", "prompts", "population", "library", "rollouts", "weights"}
