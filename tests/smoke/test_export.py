"""`fastslow export`: what it writes loads without fastslow, and the README's own code runs."""

import json
import re
import sys
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.export import export
from fastslow.loop import train
from fastslow.runs.reader import Run, read_metrics, read_population

from commands import Fork
from runs import small_config


def run_readme_code(directory: Path) -> None:
    """The transformers example, run as it stands, in the exported directory. A random model may have nothing to say."""
    code = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "from_pretrained" in code

    def alone() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "fastslow"]:
            sys.modules[name] = None  # type: ignore[assignment]  # so that an import of it fails
        exec(code, {"__name__": "__main__"})

    status, out, err = Fork(alone, directory).end()
    assert status == 0, err
    assert out


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_what_is_exported_can_be_served_and_says_what_was_measured(
    lora: dict[str, int] | None, tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = {"name": str(tiny_model_dir)} | ({"lora": lora} if lora else {})
    run, out = tmp_path / "run", tmp_path / "my-model"
    train(small_config(tiny_model_dir, run, steps=3, model=model))
    assert main(["export", str(run), str(out)]) == 0
    best, *_ = read_population(run)
    assert (out / "prompt.txt").read_text(encoding="utf-8") == best.system
    kept = json.loads((out / "prompts.json").read_text(encoding="utf-8"))
    assert [item["hash"] for item in kept] == [prompt.hash for prompt in dict.fromkeys(read_population(run))]
    assert not (out / "resume").exists()
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (out / weights).read_bytes() == (run / "checkpoints" / "step_3" / weights).read_bytes()
    drawn = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert (drawn["temperature"], drawn["top_p"]) == (0.6, 0.95)
    assert "max_new_tokens" not in drawn, "servers take it as a limit of every request"
    text = (out / "README.md").read_text(encoding="utf-8")
    last = read_metrics(run)[-1]
    assert f"| 3 | {last['val/mean@2']:.3f} | {last['val/best@2']:.3f} | {last['kl/base']:.3f} |" in text
    assert "--enable-lora --max-lora-rank 8 --lora-modules my-model=." in text if lora else "vllm serve . " in text
    run_readme_code(out)


def test_what_cannot_be_exported_is_named(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(small_config(tiny_model_dir, run, steps=2, evaluation={"every": 0}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        ([tmp_path / "none", tmp_path / "out"], "none"),
        ([run, tmp_path / "full"], "is there already and not empty"),
        ([run, tmp_path / "out", "--weights", "step_9"], "weights: 'step_9' does not exist"),
    ):
        assert main(["export", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert "The run made no evaluation." in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_distilled_weights_are_served_under_the_seed_prompt(tiny_model_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small_config(tiny_model_dir, run, steps=1, method="distill", distill={"prompt": "write many letters"}))
    export(run, tmp_path / "out")
    assert (tmp_path / "out" / "prompt.txt").read_text(encoding="utf-8") == "go"
    (teacher,) = json.loads((tmp_path / "out" / "prompts.json").read_text(encoding="utf-8"))
    assert teacher["components"] == {"system": "write many letters"}


def test_prompts_say_which_kinds_of_problems_they_are_best_for(tiny_model_dir: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    train(small_config(tiny_model_dir, run, steps=2, task={"name": "toy:KindsTask"}, evaluation={"every": 0}))
    export(run, out)
    members = json.loads((out / "prompts.json").read_text(encoding="utf-8"))
    assert {kind: member["hash"] for member in members for kind in member["best_for"]} == Run(run).by_kind
