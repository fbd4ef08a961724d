"""Reflection that fails costs children, never a run: nothing is lost, and every failure is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.runs.reader import read_candidates

from chat_server import INPUT_TOKENS, OUTPUT_TOKENS, Answer, ChatServer
from runs import metrics_of, small_config


class Listener:
    """An observer that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "warning":
            self.warnings.append(data["message"])


def run(model: Path, output: Path, server: ChatServer, **changes: Any) -> list[str]:
    proposer = {
        "kind": "openai", "model": "x", "base_url": server.url, "backoff_s": 0.001,
        "usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 5.0, **changes,
    }  # fmt: skip
    fast = {
        "anchor_problems": 6, "metric_calls": 48, "reflection_minibatch": 3, "proposals_per_iteration": 2,
        "proposer": proposer,
    }  # fmt: skip
    listener = Listener()
    train(small_config(model, output, fast=fast), observer=listener)
    return listener.warnings


def total(run: Path, name: str) -> Any:
    return sum(line[name] for line in metrics_of(run))


def write_a_new_prompt(number: int, request: dict[str, Any]) -> Answer:
    return Answer(text=f"<new_prompt>go and write {'abcdefgh'[number % 8]} number {number}</new_prompt>")


@pytest.mark.parametrize("retries", [0, 3])
def test_a_server_that_fails_every_other_call_loses_nothing(tiny_model_dir: Path, tmp_path: Path, retries: int) -> None:
    def answer(number: int, request: dict[str, Any]) -> Answer:
        return Answer(status=500) if number % 2 else write_a_new_prompt(number, request)

    with ChatServer(answer) as server:
        run(tiny_model_dir, tmp_path / "run", server, retries=retries)
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(7))
    assert total(tmp_path / "run", "fast/reflection_calls") == len(server.requests)
    assert total(tmp_path / "run", "fast/reflection_failures") == server.failures > 0
    answered = len(server.requests) - server.failures
    assert total(tmp_path / "run", "fast/input_tokens") == answered * INPUT_TOKENS
    assert total(tmp_path / "run", "fast/output_tokens") == answered * OUTPUT_TOKENS
    assert lines[-1]["usd_total"] == pytest.approx(answered * (1000 * 1 + 200 * 5) / 1e6)
    written = {f"go and write {'abcdefgh'[n % 8]} number {n}" for n in range(0, len(server.requests), 2)}
    recorded = {candidate["components"]["system"] for candidate in read_candidates(tmp_path / "run")}
    assert written <= recorded
    assert all(line["fast/metric_calls"] <= 48 for line in lines)
    assert all(line.get("fast/error") is None for line in lines)


@pytest.mark.parametrize("there", [True, False])
def test_a_server_that_is_down_keeps_the_population_and_training_goes_on(
    tiny_model_dir: Path, tmp_path: Path, there: bool
) -> None:
    with ChatServer([Answer(status=503)]) as server:
        if there:
            warnings = run(tiny_model_dir, tmp_path / "run", server, retries=1)
    if not there:
        warnings = run(tiny_model_dir, tmp_path / "run", server, retries=1)
    lines = metrics_of(tmp_path / "run")
    errors = [line["fast/error"] for line in lines if line["fast/metric_calls"]]
    assert len(errors) == 3
    assert all("the previous population is kept" in error for error in errors)
    assert sum("the previous population is kept" in warning for warning in warnings) == 3
    # Two iterations of two proposals of two attempts reach three failures in a row, in each of three cycles.
    assert total(tmp_path / "run", "fast/reflection_failures") == 3 * 2 * 2 * 2
    if there:
        assert server.failures == len(server.requests) == 24
    assert lines[-1]["fast/population_size"] == 1

    assert {c["components"]["system"] for c in read_candidates(tmp_path / "run")} == {"go"}
    assert (lines[-1]["step"], lines[-1]["policy_version"]) == (6, 6)
    assert lines[-1]["kl/base"] > 0.0


def test_replies_that_are_all_broken_are_refused_counted_and_recorded(tiny_model_dir: Path, tmp_path: Path) -> None:
    with ChatServer([Answer(text="<new_prompt>go to the", finish_reason="length")]) as server:
        run(tiny_model_dir, tmp_path / "run", server)
    assert total(tmp_path / "run", "fast/reflection_refused") == len(server.requests) > 0
    assert total(tmp_path / "run", "fast/reflection_failures") == 0
    children = [c for c in read_candidates(tmp_path / "run") if c["parent"] is not None]
    assert len(children) == len(server.requests)
    assert not any(child["accepted"] for child in children)
    population = json.loads((tmp_path / "run" / "population.json").read_text(encoding="utf-8"))
    assert "go to the" not in json.dumps(population)


def test_a_cycle_in_which_every_reply_was_refused_says_so_with_the_first_reasons(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    with ChatServer([Answer(text="no tags"), Answer(text="half", finish_reason="length")]) as server:
        warnings = run(tiny_model_dir, tmp_path / "run", server)
    loud = [warning for warning in warnings if "EVERY reply of the reflection LM was refused" in warning]
    assert len(loud) == 3, "one for each cycle"
    assert "1 x the reply has no <new_prompt> ... </new_prompt>" in loud[0]
    assert "the reply was truncated at its token limit" in loud[0]
