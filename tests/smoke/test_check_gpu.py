"""`make check-gpu` on a CPU and tiny models: every part runs, what fails is told, what is cut leaves its results."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("check_gpu", "gpu_checks", "gpu_models", "gpu_steps")

CHECKS = 19
"""The contract's checks, and that the decoders agree."""


@pytest.fixture(scope="module")
def check_gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(sys, "path", sys.path[:])
        yield importlib.import_module("check_gpu")
        for name in MODULES:
            sys.modules.pop(name, None)


def run(check_gpu: Any, output: Path, *more: str) -> tuple[int, dict[str, Any]]:
    status = check_gpu.main(["--device", "cpu", "--tiny", "--output", str(output), *more])
    return status, json.loads(output.read_text(encoding="utf-8"))["cpu"]


@pytest.fixture(scope="module")
def whole(check_gpu: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    output = tmp_path_factory.mktemp("gpu") / "results" / "gpu.json"
    parts = ["machine", "contract", "resume", "0.6B", "8B"]
    status, found = run(check_gpu, output, "--in-process", "--parts", *parts)
    return status, found, output.with_suffix(".md").read_text(encoding="utf-8")


def records(found: dict[str, Any], part: str, what: str) -> list[dict[str, Any]]:
    return [record for record in found["parts"][part]["records"] if record["what"] == what]


def test_every_part_runs_and_every_check_holds(whole: tuple[int, dict[str, Any], str]) -> None:
    status, found, _ = whole
    assert status == 0
    assert {part: done["outcome"] for part, done in found["parts"].items()} == dict.fromkeys(found["parts"], "done")
    names = {record["name"] for part in found["parts"] for record in records(found, part, "check")}
    assert {
        "float32: sampling and training agree",
        "float32: fixed shapes give the tokens of shapes that grow",
        "float32: resume, deterministic",
        "float32: resume, as usual",
        "case a: the update is sound",
    } <= names
    assert len(records(found, "contract", "check")) == CHECKS


def test_what_is_measured_is_whole(whole: tuple[int, dict[str, Any], str]) -> None:
    _, found, table = whole
    speeds = records(found, "0.6B", "speed")
    assert {(r["case"], r["part"], r["side"]) for r in speeds} == {
        (case, part, side)
        for case in "ab"
        for part, side in (
            ("sampling", "fastslow, growing"), ("sampling", "fastslow, not fused"), ("sampling", "fastslow, static"),
            ("training", "fastslow"), ("sampling", "generate"),
        )
    }  # fmt: skip
    for record in speeds:
        assert record["tokens"] == 12 and record["seconds"] > 0
        assert record["tokens_a_second"] == pytest.approx(12 / record["seconds"])
        assert record["share_of_limit"] == pytest.approx(record["limit_s"] / record["seconds"])
    limits = {(r["case"], r["part"]): r["limit_s"] for r in speeds}
    assert 0 < limits["a", "sampling"] < limits["b", "sampling"] < limits["b", "training"]
    assert {r["name"] for r in records(found, "0.6B", "left out")} >= {"generate_batch, case a"}
    assert table.count("| 0.6B | b | sampling |") == 4
    assert "| contract | done |" in table and f"{CHECKS} of {CHECKS}" in table


def test_a_part_has_a_process_of_its_own_and_a_limit(check_gpu: Any, tmp_path: Path) -> None:
    status, found = run(check_gpu, tmp_path / "gpu.json", "--parts", "machine")
    assert status == 0 and found["parts"]["machine"]["outcome"] == "done"
    assert [record["dtype"] for record in records(found, "machine", "rates")] == ["float32", "bfloat16"]
    status, found = run(check_gpu, tmp_path / "cut.json", "--parts", "machine", "contract", "--seconds", "1")
    assert {done["outcome"] for done in found["parts"].values()} == {"cut"}
    assert status == 1  # a check that was not made does not hold


def test_a_cut_takes_along_what_the_part_has_started(
    check_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "part.py"
    script.write_text("import subprocess\nsubprocess.run(['sleep', '60'])\n", encoding="utf-8")
    monkeypatch.setattr(check_gpu, "__file__", str(script))
    started = time.monotonic()
    outcome = check_gpu.run_apart("machine", check_gpu.parse_options([]), tmp_path / "lines", 0.5)
    assert outcome == ("cut", "not done after 0 s")
    assert time.monotonic() - started < 20  # the sleeper holds the pipe: without it gone, this would take a minute


def test_a_part_that_crashes_says_its_last_words(
    check_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "part.py"
    script.write_text("print('a card on fire')\nraise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.setattr(check_gpu, "__file__", str(script))
    outcome = check_gpu.run_apart("machine", check_gpu.parse_options([]), tmp_path / "lines", 30)
    assert outcome == ("failed", "a card on fire")


def test_what_was_written_before_a_cut_is_kept(check_gpu: Any, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"what": "check", "ok": true}\n{"what": "che', encoding="utf-8")
    assert check_gpu._read_lines(tmp_path / "lines") == [{"what": "check", "ok": True}]


def test_a_check_that_breaks_is_named_and_counts(
    check_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: Any, record: Any) -> None:
        record(what="check", name="float32: it holds", ok=True)
        record(what="check", name="float32: it does not", ok=False, why="0.3 nats apart")
        raise ValueError("and then it breaks")

    monkeypatch.setattr(check_gpu, "parts", lambda: {"contract": broken})
    status, found = run(check_gpu, tmp_path / "gpu.json", "--in-process", "--parts", "contract")
    assert status == 1
    assert check_gpu.failures(found) == [
        "contract: float32: it does not: 0.3 nats apart",
        "contract: failed: ValueError: and then it breaks",
    ]
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "- FAILS: contract: float32: it does not: 0.3 nats apart" in table and "1 of 2" in table


def test_parts_that_were_not_run_stay_as_they_were(
    check_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> Any:
        return lambda options, record: record(what="check", name=name, ok=True)

    for parts, name in ((("contract", "resume"), "first"), (("contract",), "second")):
        monkeypatch.setattr(
            check_gpu, "parts", lambda name=name: {part: found(name) for part in ("contract", "resume")}
        )
        _, result = run(check_gpu, tmp_path / "gpu.json", "--in-process", "--revision", name, "--parts", *parts)
    told = {part: (done["revision"], done["records"][0]["name"]) for part, done in result["parts"].items()}
    assert told == {"contract": ("second", "second"), "resume": ("first", "first")}


def test_without_a_gpu_it_says_what_can_be_done(check_gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is at hand")
    assert check_gpu.main([]) == 2
    assert "no GPU is at hand: --device cpu --tiny tries the logic on a CPU" in capsys.readouterr().err


def test_ratios_by_hand(check_gpu: Any) -> None:
    given = {
        ("sampling", "fastslow, static"): 2.0, ("training", "fastslow"): 3.0, ("sampling", "fastslow, growing"): 8.0,
        ("sampling", "generate"): 6.0, ("sampling", "TRL"): 7.0, ("training", "TRL"): 8.0,
    }  # fmt: skip
    speeds = [("0.6B", {"case": "a", "part": part, "side": side, "seconds": s}) for (part, side), s in given.items()]
    assert check_gpu.ratios(speeds)[2] == "| 0.6B | a | 5 | 3 | 4 | - | 3 | - |"
    assert check_gpu.ratios([("8B", {**speeds[0][1], "case": "b"})])[2] == "| 8B | b | - | - | - | - | - | - |"
    assert check_gpu.ratios([]) == []


def test_limits_by_hand(check_gpu: Any) -> None:
    models = importlib.import_module("gpu_models")

    class Network:
        linear_weights, head_weights = 100, 10

        def forward_flops(self, depths: list[int], logit_rows: int) -> int:
            return 200 * len(depths) + 20 * logit_rows

    class Config:
        num_key_value_heads, head_dim, num_hidden_layers = 1, 4, 1

    contexts = [(1, 2, 3), (1, 2, 3), (1, 2, 4)]
    # Nodes: 4 of the contexts and 2 tokens of each of 3 rows; logits for 2 contexts and 2 tokens a row. One forward
    # pass is 200 * 10 + 20 * 8 = 2160, of which decoding is twice 200 * 3 + 20 * 3 = 660.
    slow_arithmetic = models.Limits(Network(), Config(), models.Rates(1.0, 1e9), 2)
    assert slow_arithmetic.sampling_s(contexts, 3) == pytest.approx(2160)
    assert slow_arithmetic.training_s(contexts, 3) == pytest.approx(3 * 2160)
    # A token's keys and values are 2 * 1 * 4 * 1 * 2 = 16 bytes: weights 220, prefixes 64, own 48 and then 96.
    slow_memory = models.Limits(Network(), Config(), models.Rates(1e9, 1.0), 2)
    assert slow_memory.sampling_s(contexts, 3) == pytest.approx(220 + (220 + 64 + 48) + (220 + 64 + 96))
