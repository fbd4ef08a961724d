"""`fastslow export`: what it writes loads without fastslow, and the README's own code runs."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.errors import ConfigError
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


# -- what is broken ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    run = tmp_path_factory.mktemp("made") / "run"
    train(small_config(tiny_model_dir, run, steps=2, checkpoint_every=1, evaluation={"every": 0}))
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def emptied(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def torn(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def torn_without_checksums(checkpoint: Path) -> None:
    torn(checkpoint)
    (checkpoint / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (emptied, "there are no weights in it"),
        (torn, "model.safetensors is not what was written"),
        (torn_without_checksums, "model.safetensors is no whole file of weights"),
        (lambda checkpoint: (checkpoint / "model.safetensors").unlink(), "model.safetensors is gone"),
        (lambda checkpoint: (checkpoint / "SHA256SUMS").write_text(""), "model.safetensors is not in SHA256SUMS"),
    ],
    ids=["emptied", "torn", "torn without checksums", "deleted", "no list"],
)
def test_weights_that_are_not_whole_are_refused_with_the_checkpoint_to_take(
    change: Callable[[Path], object], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run / "checkpoints" / "step_2")
    out = tmp_path / "out"
    for command in (["export", run, out], ["evaluate", run, "--k", "1"], ["serve", run]):
        assert main([str(each) for each in command]) == 2
        said = capsys.readouterr().err
        assert (
            said.startswith(f"fastslow: weights: {str(run / 'checkpoints' / 'step_2')!r} is broken: ")
            and message in said
        )
        assert said.endswith("Take a whole checkpoint, --weights step_1\n")
    assert not out.exists()
    assert main(["export", str(run), str(out), "--weights", "step_1"]) == 0
    emptied(run / "checkpoints" / "step_1")
    with pytest.raises(ConfigError, match="No other one is whole: put it back from a copy"):
        export(run, tmp_path / "again")


@pytest.mark.parametrize("data", [b"[1]", b'{"temperature": ', b'{"a": "\xe9"}'])
def test_a_broken_generation_config_leaves_no_half_of_an_export(data: bytes, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step_2"
    (checkpoint / "SHA256SUMS").unlink()
    (checkpoint / "generation_config.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"generation_config.json' is broken: "):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def give(run: Path, components: dict[str, str]) -> None:
    """A population of one prompt with these components."""
    member = {"hash": "x", "components": components, "mean": None}
    (run / "population.json").write_text(json.dumps({"population": [member]}), encoding="utf-8")


def test_components_whose_names_look_alike_have_files_of_their_own(run: Path, tmp_path: Path) -> None:
    give(run, {"tool:x": "one", "tool_x": "two", "Tool_x": "three", "tool_x.1": "four"})
    export(run, tmp_path / "out")
    found = sorted(path for path in (tmp_path / "out").glob("prompt_*.txt"))
    assert len({path.name.casefold() for path in found}) == 4
    assert sorted(path.read_text(encoding="utf-8") for path in found) == ["four", "one", "three", "two"]


def test_a_name_of_wide_characters_is_measured_in_bytes(run: Path, tmp_path: Path) -> None:
    give(run, {"system": "a", "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 90: "b"})
    with pytest.raises(ConfigError, match=r"cannot be the name of a file: .* up to 200 bytes of them"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    give(run, {"system": "a", "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 66: "b"})
    export(run, tmp_path / "out")


def test_checkpoints_that_lie_elsewhere_are_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="checkpoints' is a symbolic link: only plain files are exported"):
        export(run, tmp_path / "out")


def test_a_population_that_is_gone_is_not_one_that_is_yet_to_come(run: Path, tmp_path: Path) -> None:
    (run / "population.json").unlink()
    with pytest.raises(
        ConfigError, match=r"population.json' is missing, and the run is beyond its first cycle: put it back"
    ):
        export(run, tmp_path / "out")
    (run / "prompts.jsonl").unlink()
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="has no population yet: its first cycle has not ended"):
        export(run, tmp_path / "out")
