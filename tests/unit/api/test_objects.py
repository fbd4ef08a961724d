"""`fastslow.train` and its sisters with Python objects in the place of names."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fastslow
from fastslow.api.names import import_path, name_of, weights_digest
from fastslow.api.objects import Objects, collect
from fastslow.cli.main import main
from fastslow.errors import ConfigError
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Proposal
from fastslow.tasks.base import Task
from fastslow.types import Prompt

from runs import metrics_of, record_of, small_config
from toy import LettersTask

ROWS = [{"prompt": f"say {number}", "answer": "abcdefgh"[number % 8]} for number in range(24)]
SPLITS = {"train": "rest", "validation": 4}
MODULE = """
def short(completions, **columns):
    return [float(len(text) < 5) for text in completions]

def says(completions, answer, **columns):
    return [(float(right in text), f"Write the letter {right}.") for text, right in zip(completions, answer)]
"""


def functions() -> list[Callable[..., Any]]:
    """Functions that only this program has."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(MODULE, space)
    return [space["short"], space["says"]]


def settings(output: Path, **more: Any) -> dict[str, Any]:
    config = small_config(Path("nowhere"), output, steps=2, checkpoint_every=1, evaluation={"every": 1})
    tree = config.model_dump(mode="json")
    return {key: value for key, value in tree.items() if key not in ("model", "task")} | more


def loaded(model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_list(ROWS)


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, rows: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run whose model, tokenizer, data and functions were given, and the model afterwards."""
    output = tmp_path_factory.mktemp("given") / "run"
    model = loaded(tiny_model_dir)
    fastslow.train(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_model_dir),
        dataset=rows,
        reward_funcs=functions(),
        reward_range=(0, 2),
        task={"options": {"splits": SPLITS}},
        **settings(output),
    )
    return output, model


def again(model_dir: Path, rows: datasets.Dataset) -> dict[str, Any]:
    """The objects of the run, as they were before it."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    return {"model": loaded(model_dir), "tokenizer": tokenizer, "dataset": rows, "reward_funcs": functions()}


def test_objects_give_what_names_give_to_the_last_bit(
    run: tuple[Path, Any], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("named.py").write_text(MODULE)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = {
        "data": "rows.jsonl", "splits": SPLITS, "reward_functions": ["named.py:short", "named.py:says"],
        "reward_range": [0.0, 2.0],
    }  # fmt: skip
    fastslow.train(model=tiny_model_dir, task={"name": "records", "options": options}, **settings(Path("named")))
    assert metrics_of(run[0]) == metrics_of(Path("named"))
    assert record_of(run[0])["weights"] == record_of(Path("named"))["weights"]


def test_a_model_is_trained_in_place_and_is_otherwise_as_it_was(run: tuple[Path, Any], tiny_model_dir: Path) -> None:
    output, model = run
    trained = AutoModelForCausalLM.from_pretrained(output / "checkpoints" / "step_2")
    assert weights_digest(model) == weights_digest(trained) != weights_digest(loaded(tiny_model_dir))
    assert model.config._attn_implementation == "sdpa" and not model.training
    assert model.generate(torch.tensor([[9, 10]]), max_new_tokens=2).shape[1] > 2


def test_the_run_says_how_it_is_resumed_and_the_command_says_it_too(
    run: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = run
    line = (
        f"fastslow.train(resume={str(output)!r}, model=model, tokenizer=tokenizer, "
        "reward_funcs=[short, says], dataset=dataset)"
    )
    head = (output / "config.yaml").read_text().splitlines()[:2]
    assert sorted(head[1].strip("# )").split(", ")) == sorted(line.strip(")").split(", "))
    assert main(["train", "--resume", str(output), "--set", "steps=3"]) == 2
    said = capsys.readouterr().err
    assert "<object: short>, <object: says>" in said and "reward_funcs=[short, says]" in said


def test_a_resumed_run_is_an_uninterrupted_one(
    run: tuple[Path, Any], tiny_model_dir: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    more = {"reward_range": (0, 2), "task": {"options": {"splits": SPLITS}}, **settings(output)}
    fastslow.train(**again(tiny_model_dir, rows), **{**more, "steps": 1})
    # The same call again, as a script makes it, with `resume` besides.
    result = fastslow.train(resume=str(output), **again(tiny_model_dir, rows), **more)
    assert result.steps == 2
    assert record_of(output) == record_of(run[0])


def test_a_run_is_not_resumed_with_other_objects(
    run: tuple[Path, Any], tiny_model_dir: Path, rows: datasets.Dataset
) -> None:
    output, trained = run
    given = again(tiny_model_dir, rows)
    for change, message in (
        (
            {"model": trained},
            r"model.name: .* was started with <object: LlamaForCausalLM \w{8}>, .* must be loaded again",
        ),
        ({"dataset": rows.select(range(20))}, "task.options.data: .* Dataset of 24 rows, .* Dataset of 20 rows"),
        ({"reward_funcs": functions()[:1]}, "reward_functions: 1 objects were given, and the run was started with"),
        ({"environment": dict}, "task.options.environment: 1 objects were given, and .* none there"),
        ({"reward_funcs": None}, r"started from Python with .*fastslow\.train\(resume="),
        ({"slow": {"learning_rate": 0.5}}, "was started with another slow.learning_rate"),
    ):
        with pytest.raises((ConfigError, fastslow.ResumeError), match=message):
            fastslow.train(resume=output, **{**given, **change, "steps": 3})


def test_a_run_and_a_loaded_model_are_measured_and_exported(
    run: tuple[Path, Any], tiny_model_dir: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    output, model = run
    given = {"dataset": rows, "reward_funcs": functions(), "prompt": "seed", "problems": 3, "k": 1}
    by_run = fastslow.evaluate(str(output), **given, model=loaded(tiny_model_dir), kl=True).rows[0]
    assert by_run.kl is not None and by_run.kl.mean > 0.0
    more = {"reward_range": (0, 2), "task": {"options": {"splits": SPLITS}}, "seed": 3, "sampling": {"max_tokens": 8}}
    target = fastslow.evaluate(
        model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_model_dir),
        **{**given, "prompt": Prompt.of("You are a helpful assistant.")},
        **more,
    )
    assert target.rows[0].result.mean == by_run.result.mean
    assert "`LlamaForCausalLM`" in (fastslow.export(str(output), str(tmp_path / "out")) / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"reward_functions: .* give it again from Python, with reward_funcs=short"):
        fastslow.evaluate(output, dataset=rows)


class Shouts:
    """A proposer."""

    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        return Proposal(f"{parent.as_dict()[component]}!", Usage())


class Counts:
    """A tracker, or an observer."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        self.kinds.append(kind)


def test_a_task_a_proposer_and_listeners_are_given(tiny_model_dir: Path, tmp_path: Path) -> None:
    tracker, observer, heard = Counts(), Counts(), list[str]()
    task: Task = LettersTask()
    result = fastslow.train(
        model=str(tiny_model_dir),
        task=task,
        proposer=Shouts(),
        tracker=tracker,
        callbacks=[observer, lambda kind, payload: heard.append(kind)],
        **{key: value for key, value in settings(tmp_path / "run", steps=1).items() if key not in ("fast", "tracker")},
        fast={"anchor_problems": 6, "metric_calls": 24},
    )
    assert tracker.kinds == observer.kinds == heard and {"start", "cycle", "step", "end"} <= set(heard)
    assert any(line["components"]["system"] == "go!" for line in fastslow.read_candidates(str(result.run)))
    assert task.calls > 0  # this object has scored
    assert fastslow.read_metrics(str(result.run)) == fastslow.read_metrics(result.run)


def test_an_optimiser_is_given_and_a_path_is_a_text(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", steps=1, evaluation={"every": 0})
    (tmp_path / "a.yaml").write_text(json.dumps(config.model_dump(mode="json", exclude_defaults=True)))
    over = {"fast": {"anchor_problems": 6, "metric_calls": 24, "reflection_minibatch": 8}}
    result = fastslow.train(str(tmp_path / "a.yaml"), optimiser=FrozenOptimiser(), **over)
    assert result.steps == 1 and "<object: FrozenOptimiser>" in (result.run / "config.yaml").read_text()


def test_a_peft_model_is_trained_in_place(tiny_model_dir: Path, rows: datasets.Dataset, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def peft() -> Any:
        torch.manual_seed(0)
        settings = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return get_peft_model(loaded(tiny_model_dir), settings)

    model, tokenizer = peft(), AutoTokenizer.from_pretrained(tiny_model_dir)
    given = {"tokenizer": tokenizer, "dataset": rows, "reward_funcs": functions(), "reward_range": (0, 2)}
    output = tmp_path / "run"
    fastslow.train(model=model, **given, **settings(output, method="rl"))
    assert any(bool(p.any()) for name, p in model.named_parameters() if "lora_B" in name)
    assert list(model.peft_config) == ["default"]
    measured = fastslow.evaluate(
        output, model=peft(), dataset=rows, reward_funcs=functions(), prompt="seed", problems=2, k=1, kl=True
    )
    assert measured.rows[0].kl is not None and measured.rows[0].kl.mean > 0.0
    # What has learnt something is a base of its own.
    more = fastslow.train(model=model, **given, **settings(tmp_path / "more", method="rl", steps=1))
    assert fastslow.read_metrics(more.run)[0]["kl/base"] == pytest.approx(0.0, abs=1e-6)
    assert list(model.peft_config) == ["default"]


def test_an_experiment_takes_objects_and_leaves_a_model_as_it_was(
    tiny_model_dir: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    model = loaded(tiny_model_dir)
    before = weights_digest(model)
    splits = {"train": "rest", "validation": 4, "test": 2}
    more = settings(tmp_path / "unused", method="rl", steps=1)
    lines = fastslow.experiment(
        "ablate",
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_model_dir),
        dataset=rows,
        reward_funcs=functions(),
        reward_range=(0, 2),
        task={"options": {"splits": splits}},
        methods=["rl"],
        seeds=1,
        key="slow.warmup_steps",
        values=[1, 2],
        **{key: value for key, value in more.items() if key != "output"},
        output=str(tmp_path / "study"),
    )
    assert len(lines) == 2 and weights_digest(model) == before


class Dice:
    """An environment as TRL's."""

    def reset(self, **row: Any) -> str:
        return "Roll."

    def roll(self, sides: int) -> str:
        """Roll the dice.

        Args:
            sides: How many sides.
        """
        return str(sides)

    def get_reward(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"dataset": ROWS, "reward_funcs": len}, {"name": "records", "splits": {"train": "rest", "validation": 2}}),
        ({"dataset": "rows.parquet", "reward_funcs": len}, {"name": "records", "data": "rows.parquet"}),
        ({"environment": Dice}, {"name": "environment"}),
        ({"dataset": {"train": ROWS, "validation": Path("v.csv")}, "reward_funcs": len}, {"name": "records"}),
    ],
    ids=["rows", "file", "environment", "splits"],
)
def test_keywords_are_keys_of_the_config(keywords: dict[str, Any], expected: dict[str, Any]) -> None:
    given = collect(
        {"model": {"name": "m"}, "slow": {"warmup_steps": 3}}, Objects(**keywords), {"slow.learning_rate": 0.5}
    )
    task = given.tree["task"]
    assert {"name": task["name"], **task["options"]} | expected == {"name": task["name"], **task["options"]}
    assert given.tree["slow"] == {"warmup_steps": 3, "learning_rate": 0.5} and given.tree["model"] == {"name": "m"}
    json.dumps(given.tree)  # texts alone


def test_a_name_is_an_import_path_where_there_is_one() -> None:
    assert import_path(small_config) == "runs:small_config" and name_of(LettersTask) == "toy:LettersTask"
    assert name_of(lambda: 1) == "<object: lambda>"
    assert name_of(functions()[0], ["<object: short>"]) == "<object: short 2>"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastslow.train(steps=3), r"model: is missing: give model="),
        (lambda: fastslow.train(model="m", steps=3), r"task: is missing: give dataset= and reward_funcs="),
        (lambda: fastslow.train(3), "config: 3 is none: give the path of a YAML file"),
        (lambda: fastslow.train(model="m", task=LettersTask(), dataset=[]), "task: a Task has its own problems"),
        (lambda: fastslow.train(model="m", task=LettersTask(), callbacks=[3]), "callbacks: 3 hears nothing"),
        (lambda: fastslow.train(model="m", task=LettersTask(), steps="x"), "steps: "),
        (lambda: fastslow.train(model="m", task=LettersTask(), stepz=1), "stepz: unknown key. Did you mean 'steps'"),
        (
            lambda: fastslow.train(model="m", reward_funcs=len, dataset=iter([])),
            "dataset: .* has no rows that can be counted",
        ),
        (lambda: fastslow.evaluate(3), "target: 3 is neither a run directory"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_loads(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "is_quantized", True), "quantised"),
        (lambda model: model.to(torch.float64), "computes in torch.float64"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(
    change: Callable[[Any], object], message: str, tiny_model_dir: Path
) -> None:
    model = loaded(tiny_model_dir)
    change(model)
    with pytest.raises(ConfigError, match=message):
        fastslow.train(model=model, task=LettersTask())


def test_a_submodule_does_not_take_the_place_of_a_function() -> None:
    module = importlib.import_module("fastslow.export")
    assert callable(fastslow.export) and fastslow.export is not module
