"""The recipes in configs/paper: the paper's numbers, and tasks that data in the hub's schema can build."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config, load_config, with_overrides
from fastslow.training.build import check
from fastslow.types import Problem

PAPER = Path(__file__).parents[3] / "configs" / "paper"

# The table of settings of arXiv 2605.12484: K, G/K, problems a step, context, prompt and response tokens, GEPA's
# evaluation set and metric calls, advantages divided by the deviation.
TABLE = {
    "hover_hard": ("Qwen/Qwen3-8B", True, 8, 1, 32, 18944, 4096, 8192, 192, 960, True),
    "physics": ("Qwen/Qwen3-8B", True, 4, 2, 32, 18944, 4096, 8192, 192, 960, True),
    "codeio": ("Qwen/Qwen3-8B", True, 8, 1, 32, 18944, 4096, 8192, 192, 960, True),
    "math": ("Qwen/Qwen3-8B-Base", None, 4, 2, 64, 12288, 4096, 8192, 96, 1500, False),
    "star_graph": ("Qwen/Qwen3-4B-Instruct-2507", None, 8, 1, 32, 8192, 4096, 4096, 200, 960, True),
}
STREAM = "continual"
# What the paper gives once, for all domains.
EVERYWHERE = {
    "method": "fst",
    "checkpoint_every": 50,
    "model.lora": None,
    "loop.group_size": 8,
    "loop.baseline": "problem",
    "loop.batch_normalisation": True,
    "slow.loss": "cispo",
    "slow.clip_low": 1.0,
    "slow.clip_high": 3.0,
    "slow.kl_coefficient": 1e-3,
    "slow.learning_rate": 1e-6,
    "slow.warmup_steps": 10,
    "slow.betas": (0.9, 0.999),
    "slow.weight_decay": 0.0,
    "fast.optimiser": "gepa",
    "fast.proposer.kind": "litellm",
    "fast.proposer.model": "openai/gpt-5.2",
    "fast.proposer.recipe": "light",
    "evaluation.k": 4,
    "evaluation.temperature": 0.6,
    "evaluation.top_p": 0.95,
}
# Ours, the same for all domains or by one rule.
OURS = {"sampling.temperature": 1.0, "sampling.top_p": 1.0, "slow.max_grad_norm": 1.0, "evaluation.every": 10}
KEYS = {
    "model.name": 0,
    "loop.population_size": 2,
    "loop.problems_per_step": 4,
    "sampling.max_tokens": 7,
    "fast.anchor_problems": 8,
    "fast.metric_calls": 9,
    "loop.divide_by_std": 10,
}


def recipe(name: str) -> Config:
    return load_config(PAPER / f"{name}.yaml")


def at(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def deviations(name: str, config: Config) -> list[str]:
    """The keys of a config that do not have the paper's value, or ours where it gives none."""
    row = TABLE["codeio" if name == STREAM else name]
    wanted = {**EVERYWHERE, **OURS, **{key: row[column] for key, column in KEYS.items()}}
    wrong = [key for key, value in wanted.items() if at(config, key) != value]
    if config.loop.group_size != row[2] * row[3]:
        wrong.append("G/K")
    if config.model.chat_template_kwargs.get("enable_thinking") is not row[1]:
        wrong.append("thinking")
    lookahead = config.loop.steps_per_cycle * config.loop.problems_per_step
    if lookahead < config.fast.anchor_problems or config.loop.steps_per_cycle != config.loop.reuse_max_age:
        wrong.append("T")
    return wrong


def test_there_is_a_recipe_for_each_domain() -> None:
    assert {path.name for path in PAPER.iterdir()} == {f"{name}.yaml" for name in (*TABLE, STREAM)}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_papers_numbers(name: str) -> None:
    assert deviations(name, recipe(name)) == []
    text = (PAPER / f"{name}.yaml").read_text(encoding="utf-8")
    context, prompt = TABLE[name][5:7]
    assert f"context of {context} and prompt of {prompt} tokens" in text
    assert "Open in the paper, and chosen here:" in text
    assert recipe(name).slow.tau == 4.0
    assert at(recipe(name), "output") == f"runs/paper/{name}"


@pytest.mark.parametrize(("column", "name"), enumerate(["codeio", "hover_hard", "physics", "math", "star_graph"]))
def test_the_page_has_the_numbers_of_the_recipes(column: int, name: str) -> None:
    lines = (PAPER.parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = {cells[0]: cells[1:] for cells in reversed(table)}  # the first tables are those on the recipes
    config, loop = recipe(name), recipe(name).loop
    _, task, source = rows[f"[`{name}`](../configs/paper/{name}.yaml)"]
    wanted = {
        "K, G/K": f"{loop.population_size}, {loop.group_size // loop.population_size}",
        "problems a step": f"{loop.problems_per_step}",
        "response tokens": f"{config.sampling.max_tokens}",
        "GEPA's evaluation set, metric calls a cycle": f"{config.fast.anchor_problems}, {config.fast.metric_calls}",
        "divided by the deviation": "yes" if loop.divide_by_std else "no",
        "steps a cycle, T (*ours*)": f"{loop.steps_per_cycle}",
        "steps (*ours*)": f"{config.steps}",
    }
    assert {row: rows[row][column] for row in wanted} == wanted
    assert f"`{config.task.name}`" in task
    data = config.task.options.get("data", config.task.options.get("claims"))
    assert data is None or f"`{data}`" in source


# -- the tasks, on data made here in the schema of the real ones
# ---------------------------------------------------------


def sciknoweval() -> list[dict[str, Any]]:
    rows = []
    for number in range(260):
        choices = {"text": [f"{number}.{i} m" for i in range(4)], "label": list("ABCD")}
        rows.append(
            {
                "prompt": {"default": "Given a question and four options, please select the right answer."},
                "question": f"How far does body {number} go?",
                "choices": choices,
                "label": "",
                "answerKey": "ABCD"[number % 4],
                "type": "mcq-4-choices",
                "domain": "Physics",
                "details": {"level": "L3", "task": "t", "subtask": "s", "source": "x"},
                "answer": "",
            }
        )
    five = {"text": list("vwxyz"), "label": list("ABCD")}
    rows.append({**rows[0], "question": "Malformed?", "choices": five})
    rows.append({**rows[0]})  # a duplicate
    rows += [{**rows[1], "domain": "Chemistry"}, {**rows[1], "type": "true_or_false", "question": "Open?"}]
    return rows


def polaris() -> list[dict[str, Any]]:
    answers = ["{n}", "\\frac{{{n}}}{{2}}", "\\sqrt{{{n}}}"]
    return [
        {"problem": f"Find $x_{{{n}}}$.", "answer": answers[n % 3].format(n=n + 2), "difficulty": f"{n % 8}/8"}
        for n in range(430)
    ]


def hover() -> list[dict[str, Any]]:
    return [
        {
            "id": n,
            "uid": f"u{n}",
            "claim": f"Claim {n} says that word0 holds.",
            "supporting_facts": [{"key": f"Page {page}", "value": 0} for page in (0, 1 + n % 9, 10)],
            "label": n % 2,
            "num_hops": 3 if n < 430 else 4,
            "hpqa_id": f"q{n}",
        }
        for n in range(440)
    ]


def write_pages(folder: Path) -> Path:
    lines = [json.dumps({"title": f"Page {n}", "text": [f"About word{n}."]}) + "\n" for n in range(20)]
    (folder / "wiki.jsonl").write_text("".join(lines))
    with tarfile.open(folder / "wiki.tar.gz", "w:gz") as tar:
        tar.add(folder / "wiki.jsonl", "wiki.abstracts.2017.jsonl")
    return folder / "wiki.tar.gz"


def write_pairs(folder: Path) -> None:
    fields = ("task_description", "input_output_spec", "code_sample")
    lines = [
        json.dumps({**{field: f"{field} {n // 2}" for field in fields}, "input": {"x": n}, "output": [n]}) + "\n"
        for n in range(430)
    ]
    (folder / "data").mkdir()
    (folder / "data" / "codeio_pairs.jsonl").write_text("".join(lines))


HUB = {
    ("hicai-zju/SciKnowEval", "v2", "test"): sciknoweval,
    ("POLARIS-Project/Polaris-Dataset-53K", None, "train"): polaris,
    ("vincentkoc/hover-parquet", None, "train"): hover,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """Made data where the hub would be asked; what was asked. The working directory is empty but for CodeIO pairs."""
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, split: str, revision: str | None) -> Any:
        asked.append((name, subset, split))
        return datasets.Dataset.from_list(HUB[name, subset, split]())

    def hf_hub_download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(write_pages(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path)
    return asked


def gold(name: str, problem: Problem) -> str:
    data = problem.data
    if name == "codeio":
        return f"```json\n{json.dumps(data['output'])}\n```"
    if name == "star_graph":
        return "\\boxed{" + ",".join(map(str, data["path"])) + "}"
    if name == "math":
        return f"\\boxed{{{data['record']['answer']}}}"
    if name == "physics":
        return f"<answer>{data['record']['answerKey']}</answer>"
    return f"<answer>{' '.join(data['missing']).replace('Page ', 'word')}</answer>"


EXPECTED = {
    "codeio": ({"train": 30, "validation": 200, "test": 200}, []),
    "hover_hard": (
        {"train": 30, "validation": 200, "test": 200},
        [("vincentkoc/hover-parquet", None, "train"), ("dspy/cache", "wiki.abstracts.2017.tar.gz")],
    ),
    "math": ({"train": 30, "validation": 200, "test": 200}, [("POLARIS-Project/Polaris-Dataset-53K", None, "train")]),
    "physics": ({"train": 60, "validation": 100, "test": 100}, [("hicai-zju/SciKnowEval", "v2", "test")]),
    "star_graph": ({"train": 40, "validation": 200, "test": 200}, []),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipes_task_can_be_built_and_scored(name: str, hub: list[tuple[str, ...]]) -> None:
    config = recipe(name)
    if name == "star_graph":
        assert config.task.options == {
            "d": 25,
            "p": 20,
            "n": 500,
            "train": 10000,
            "validation": 200,
            "test": 200,
            "seed": 0,
        }
        config = with_overrides(config, ["task.options.train=40"])
    _, task = check(config)
    sizes, asked = EXPECTED[name]
    assert {split: len(task.problems(split)) for split in ("train", "validation", "test")} == sizes  # type: ignore[arg-type]
    assert hub == asked
    problems = list(task.problems("train"))[:12]
    right = task.score_batch(problems, [f"<think>So.</think>{gold(name, problem)}" for problem in problems])
    assert [getattr(score, "reward", score) for score in right] == [1.0] * len(problems)
    wrong = task.score_batch(problems, ["I do not know."] * len(problems))
    assert [getattr(score, "reward", score) for score in wrong] == [0.0] * len(problems)
    # The seed prompt names the format that the feedback asks for.
    marks = {"codeio": "```json", "math": "\\boxed{}", "star_graph": "\\boxed{}"}
    assert marks.get(name, "<answer>") in task.seed_prompt.system
    assert all(marks.get(name, "<answer>") in getattr(score, "feedback", "") for score in wrong)


def test_the_stream_has_the_papers_numbers_and_the_recipes_tasks(hub: list[tuple[str, ...]]) -> None:
    config = recipe(STREAM)
    assert [key for key in deviations(STREAM, config) if key != "evaluation.every"] == []
    _, task = check(config)
    assert [part.name for part in task.parts] == ["hover", "codeio", "records"]
    starts = [task.stage(step).first_step for step in (0, 199, 200, 399, 400, 599)]
    assert starts == [0, 0, 200, 200, 400, 400]
    assert 200 % config.loop.steps_per_cycle == 0
    assert config.steps == 600
    # The seed prompt names no format and no subject.
    assert not set(task.seed_prompt.system.lower().split()) & {"claim", "function", "physics", "<answer>", "```json"}
    for spec, name in zip(config.task.options["tasks"], ("hover_hard", "codeio", "physics"), strict=True):
        assert spec["options"] == recipe(name).task.options
