"""reflections.jsonl of real runs against a real server: complete, without keys, and rewound when a run is resumed."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.runs.reader import Run, read_candidates

from chat_server import Answer, ChatServer
from runs import metrics_of, small_config

KEY = "sk-reflections-0123456789"
ENV = "FASTSLOW_TEST_REFLECTIONS"


def answer(number: int, request: dict[str, Any]) -> Answer:
    """What a seed decides: a text, a text without tags, or nothing at all."""
    seed = int(request["seed"])
    word = hashlib.sha256(str(seed).encode()).hexdigest()[:6]
    if seed % 4 == 0:
        return Answer(text=f"no tags around {word}")
    return Answer(text=f"The letter is missing: {word}.\n<new_prompt>go and write {word}</new_prompt>")


def config(model: Path, output: Path, server: ChatServer) -> Any:
    proposer = {
        "kind": "openai", "model": "x", "base_url": server.url, "api_key_env": ENV, "background": "Letters count.",
        "log_chars": 900, "refused_attempts": 3,
    }  # fmt: skip
    fast = {"anchor_problems": 6, "metric_calls": 36, "reflection_minibatch": 3, "proposer": proposer}
    return small_config(model, output, fast=fast)


def test_everything_that_was_asked_is_on_record_and_a_resumed_run_has_the_same_record(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV, KEY)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with ChatServer(answer) as server:
        train(config(tiny_model_dir, whole, server))
        asked = [request["messages"][0]["content"] for request in server.requests]
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "checkpoints" / "step_6")
        train(config(tiny_model_dir, cut, server), resume=cut)
    lines = Run(whole).reflections
    assert len(lines) == len(asked) > 6
    assert Run(cut).reflections == lines
    assert len(server.requests) > len(asked), "the resumed run asked again what it had taken back"
    assert sum(line["calls"] for line in lines) == sum(line["fast/reflection_calls"] for line in metrics_of(whole))
    assert {line["outcome"] for line in lines} == {"proposed", "refused"}
    candidates = {line["hash"] for line in read_candidates(whole)}
    for line, request in zip(lines, asked, strict=True):
        assert "Letters count." in request
        assert line["request"][:500] == request[:500]
        assert len(line["request"]) < 960
        assert (line["outcome"] == "proposed") == (line["child"] in candidates and not line["reason"])
        assert line["diagnosis"].startswith("The letter is missing" if line["reason"][:9] != "the reply" else "no tags")
    assert any("These changes to the current text were tried" in request for request in asked)
    for path in whole.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
