"""The summary of a run, from its directory."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.summary import show, summary
from fastslow.training.session import TrainResult
from fastslow.types import Prompt


def line(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "policy_version": step, "usd_total": 0.25, "time/step_s": 60.0, "time/evolve_s": 20.0,
        "time/sample_s": 10.0, "time/update_s": 5.0, "time/evaluate_s": 15.0, "rollouts/sampled_total": 40 * step,
        "rollouts/sampled_rl": 30, "rollouts/sampled_gepa": 10, "rollouts/reused": 4, "rollouts/failed": 1,
        "fast/reflection_calls": 6, "fast/reflection_failures": 1, "fast/reflection_refused": 2,
        "fast/input_tokens": 900, "fast/output_tokens": 100, **more,
    }  # fmt: skip


LINES = [
    line(0, **{"val/mean@4": 0.25, "kl/base": 0.0}),
    line(1, **{"fast/usd": 0.05}),
    line(2, **{"val/mean@4": 0.75, "kl/base": 0.0312}),
]


def told(
    directory: Path, lines: list[dict[str, Any]], prompt: str = "Be brief.", *, interrupted: bool = False
) -> dict[str, list[str]]:
    (directory / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    best = Prompt.of(prompt)
    result = TrainResult(directory, 2, interrupted, best, (best,), lines[-1], 16)
    show(result, ["3 more like: step 1: masked"])
    return dict(summary(result, ["3 more like: step 1: masked"]))


def test_the_summary_has_what_people_ask_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(tmp_path, LINES)
    assert found["best prompt"] == ["Be brief."]
    # Clopper and Pearson for 4 and 12 of 16.
    assert found["accuracy"] == [
        "0.250 [0.073, 0.524] at step 0 -> 0.750 [0.476, 0.927] at step 2; mean@4, 16 validation "
        "problems, 95 % intervals"
    ]
    assert found["KL to base"] == ["0.0312 nats a token"]
    assert found["rollouts"] == ["80 sampled (60 for training, 20 for searches), 8 reused, 2 masked"]
    assert found["time"] == ["1m30s (0m40s searching, 0m20s sampling, 0m10s updating); evaluations took 0m30s more"]
    assert found["reflection"] == ["12 calls, 2 failed, 4 replies refused, 2000 tokens, 0.2500 USD"]
    assert found["warnings"] == ["3 more like: step 1: masked"]
    assert [each.split()[1] for each in found["next"]] == ["report", "evaluate", "export"]
    out = capsys.readouterr().out
    for lines in found.values():
        for each in lines:
            assert each in out


def test_a_price_that_is_not_known_is_not_a_number(tmp_path: Path) -> None:
    lines = [LINES[0], line(1, **{"fast/usd": None, "usd_total": None}), line(2, usd_total=None)]
    assert told(tmp_path, lines)["reflection"][0].endswith("price not known")


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    calls = {"fast/reflection_calls": 0, "fast/reflection_refused": 3}
    found = told(tmp_path, [line(0), line(1, **calls)])
    assert found["accuracy"] == ["not measured: evaluation.every is 0"]
    assert found["KL to base"] == ["not measured"]
    assert found["reflection"] == ["no calls of a language model; 3 edits refused"]


def test_a_long_prompt_is_cut_and_an_interrupted_run_is_resumed_first(tmp_path: Path) -> None:
    found = told(tmp_path, LINES, "\n".join(f"rule {number}\x1b[2J" for number in range(40)), interrupted=True)
    assert len(found["best prompt"]) == 15
    assert found["best prompt"][-1].startswith("... and 26 more lines: fastslow prompts ")
    assert not any("\x1b" in each for each in found["best prompt"])
    assert found["next"][0].startswith("fastslow train --resume ")
