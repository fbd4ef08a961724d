"""Every example is run: Python blocks, configs, commands. What cannot run here is listed, with the reason."""

import argparse
import ast
import inspect
import json
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastslow
from fastslow.cli.main import build_parser, main
from fastslow.config import parse_config, read_yaml
from fastslow.methods.fst import FastSlow
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.records import RecordsTask
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.testing.agents import check_agent
from fastslow.testing.episodes import check_episodes
from fastslow.testing.optimisers import check_optimiser
from fastslow.testing.proposers import check_proposer
from fastslow.testing.tasks import check_task

from runs import small_config

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\s*(?:\.venv/bin/|uv run )?(fastslow .*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """Every fenced block of every page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE):
            where = page.relative_to(ROOT).as_posix()
            found.append(Block(where, match[2].strip(), match[3], text[: match.start()].count("\n") + 1))
    return found


BLOCKS = blocks()


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# -- how each Python block is run --------------------------------------------------------------------------------------

PYTHON = {
    "from trl import": "trl half",
    "result = fastslow.train(\n    model=model": "from trl",
    'resume="runs/fast-slow"': "goes on",
    'fastslow.evaluate(\n    "runs/fast-slow"': "goes on",
    "while not session.finished": "loop",
    'fastslow.experiment("compare"': "experiment",
    "fastslow.train(fastslow.load_config": "train",
    "class ShoutProposer": "proposer",
    "class ShuffleOptimiser": "optimiser",
    "class MyTracker": "tracker",
    "class Reverse(Task)": "task",
    "class Locks(EpisodeTask)": "episodes",
    "class Safe:": "trl environment",
    "class Countdown:": "text environment",
    "def open_lock(": "agent",
    "def matches(completions": "rewards",
    "def gspo(": "gspo",
    "class ShortSampler": "ShortSampler",
    "class SlowEngine": "SlowEngine",
    "def test_my_engine": "test_my_engine",
    "class Subjects(Task)": "kinds",
    'Path("sums.jsonl")': "tutorial of data",
    "class DoorsTask(EpisodeTask)": "tutorial of environments",
    "with fastslow.serve(": "serve",
}
"""What stands in a Python block, and how it is run."""

NOT_COMMANDS = {
    "docs/architecture.md": "a tree of the packages",
    "docs/run-directory.md": "a tree of files",
    "docs/scale-out.md": "commands of a server that is a package of its own, with GPUs; its `fastslow` lines are "
    "parsed",
    "docs/performance.md": "make and a benchmark against another package; the files must exist",
    "docs/prompts.md": "a template of reflection",
    "docs/tracking.md": "pip, the rest is parsed",
    "docs/recipes.md": "pip and export, the rest is parsed; the tool must exist",
    "docs/install.md": "pip, a directory of the shell's; the extras and the completion are tested in test_package.py",
    "CONTRIBUTING.md": "the linter, the type checker and these tests; the files must exist",
}
"""Pages with blocks that hold lines besides `fastslow` commands, and why those are not run."""


def how(block: Block) -> str:
    return next((name for words, name in PYTHON.items() if words in block.text), "")


def tree_of(model: Path) -> dict[str, Any]:
    return small_config(model, Path("runs/my-run"), steps=2).model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class Ran:
    """A Python block that was run in `folder`, and the names that it left."""

    block: Block
    names: Mapping[str, Any]
    model: Path
    folder: Path

    def save(self, name: str) -> None:
        """Keep the block as a module, as a user does who names it in a config."""
        (self.folder / f"{name}.py").write_text(self.block.text, encoding="utf-8")

    def train(self, **settings: Any) -> Any:
        """Two steps on the tiny model."""
        return fastslow.train(small_config(self.model, self.folder / "run", steps=2, **settings))


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_a_python_block_runs(
    block: Block, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = how(block)
    assert kind, f"{block}: nothing here says how to run this block: add it to PYTHON"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if kind in WHOLE:
        WHOLE[kind](block, tiny_model_dir, tmp_path)
        return
    ran = run_block(block, kind, tiny_model_dir, tmp_path)
    if kind in CHECKS:
        CHECKS[kind](ran)
    else:
        # tests/invariant/test_own_slow_side.py trains with the loss, the sampler and the engine of the page.
        assert callable(ran.names[kind])


def run_block(block: Block, kind: str, model: Path, folder: Path) -> Ran:
    """Run a block as it stands; where it trains, a handful of steps on a tiny model."""
    text = block.text
    if kind in ("train", "experiment"):
        write_config(model, folder / "my.yaml")
        for big, small in (('"steps=50"', '"steps=2"'), ("seeds=5, workers=2", "seeds=1, workers=1")):
            text = text.replace(big, small)
    if kind == "serve":
        fastslow.train(small_config(model, folder / "run", steps=2, method="rl", evaluation={"every": 0}))
        assert main(["export", str(folder / "run"), str(folder / "my-model")]) == 0
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(text, str(block), "exec"), names)
    return Ran(block, names, model, folder)


# -- what is checked of a block that was run
# ------------------------------------------------------------------------------


def trained_two_steps(ran: Ran) -> None:
    assert ran.names["result"].steps == 2


def has_lines_of_fst(ran: Ran) -> None:
    assert any("fst" in str(line) for line in ran.names["lines"])


def is_a_proposer(ran: Ran) -> None:
    check_proposer(ran.names["ShoutProposer"]())


def is_an_optimiser(ran: Ran) -> None:
    check_optimiser(ran.names["ShuffleOptimiser"])


def is_a_task(ran: Ran) -> None:
    made = (ran.names["Reverse"](train=20) for _ in range(2))
    check_task(next(made), again=next(made), right=lambda problem: problem.data["answer"])


def has_episodes(ran: Ran) -> None:
    made = (ran.names["Locks"]() for _ in range(2))
    check_task(next(made), again=next(made))
    check_episodes(ran.names["Locks"](), plays=lambda problem: ["12", "000", problem.data["code"]])
    ran.save("my_game")
    trained = ran.train(task={"name": "my_game:Locks"}, method="rl")
    assert trained.metrics["episodes/turns"] > 1.0


def is_a_trl_environment(ran: Ran) -> None:
    ran.save("my_safe")
    options = {"environment": "my_safe:Safe", "train": 12, "validation": 4}
    trained = ran.train(task={"name": "environment", "options": options}, method="rl")
    assert trained.metrics["episodes/turns"] >= 1.0
    made = (build_task(TaskConfig(name="environment", options=options)) for _ in range(2))
    check_task(next(made), again=next(made))


def is_a_text_environment(ran: Ran) -> None:
    ran.save("my_countdown")
    starts = [2 + i % 2 for i in range(30)]
    rows = [
        json.dumps({"prompt": f"Count down from {start}. This is try {i}.", "from": start})
        for i, start in enumerate(starts)
    ]
    (ran.folder / "countdown.jsonl").write_text("\n".join(rows), encoding="utf-8")
    config = TaskConfig.model_validate(read_yaml(next_yaml(ran.block))["task"])
    check_task(build_task(config), again=build_task(config))
    check_episodes(build_task(config), plays=lambda problem: ["3", "2", "1"][-problem.data["row"]["from"] :])


def is_an_agent(ran: Ran) -> None:
    check_and_train_agent(ran.names["open_lock"], ran.block, ran.model, ran.folder)


def is_the_tutorial_of_data(ran: Ran) -> None:
    shown = read_yaml(next_yaml(ran.block))
    assert build_task(TaskConfig.model_validate(shown["task"])).problems("train")
    assert train_as_shown(shown, ran.model, ran.folder).steps == 2


def is_the_tutorial_of_environments(ran: Ran) -> None:
    ran.save("doors")
    task = ran.names["DoorsTask"]()
    check_task(task, again=ran.names["DoorsTask"]())
    check_episodes(task, plays=lambda problem: list(problem.data["way"]))
    trained = train_as_shown(read_yaml(next_yaml(ran.block)), ran.model, ran.folder)
    assert trained.metrics["episodes/turns"] > 1.0


def is_a_tracker(ran: Ran) -> None:
    ran.save("my_module")
    run = ran.train(method="rl", tracker="my_module:MyTracker").run
    lines = (run / "rewards.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["0", "1", "2"]


def has_kinds(ran: Ran) -> None:
    of_kind = ran.names["Subjects"].kind_of
    assert [of_kind(None, [{"content": text}]) for text in ("Two joules?", "Two?")] == ["physics", None]


def was_served(ran: Ran) -> None:
    assert ran.names["reply"].system_fingerprint.startswith("step_2-")


def is_a_reward_function(ran: Ran) -> None:
    said = [[{"role": "assistant", "content": "4, please"}]]
    assert ran.names["matches"](said, ["4"]) == [1.0]


CHECKS: Mapping[str, Callable[[Ran], None]] = {
    "train": trained_two_steps,
    "experiment": has_lines_of_fst,
    "proposer": is_a_proposer,
    "optimiser": is_an_optimiser,
    "task": is_a_task,
    "episodes": has_episodes,
    "trl environment": is_a_trl_environment,
    "text environment": is_a_text_environment,
    "agent": is_an_agent,
    "tutorial of data": is_the_tutorial_of_data,
    "tutorial of environments": is_the_tutorial_of_environments,
    "tracker": is_a_tracker,
    "kinds": has_kinds,
    "serve": was_served,
    "rewards": is_a_reward_function,
}
"""By how a block is run."""


# -- blocks that are more than can be run as they stand
# -------------------------------------------------------------------


def train_as_shown(shown: Mapping[str, Any], model: Path, folder: Path) -> Any:
    """Two steps of a page's config: a tiny model, short answers, and a small search take the place of the page's."""
    small = {
        **shown,
        "model": {"name": str(model)},
        "steps": 2,
        "loop": {"steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 3},
        "sampling": {"max_tokens": 6},
        "fast": {"anchor_problems": 4, "metric_calls": 12, "reflection_minibatch": 2},
        "evaluation": {"every": 0},
        "output": str(folder / "run"),
    }
    return fastslow.train(parse_config(small))


SMALLER = {
    "Qwen/Qwen3-0.6B": "MODEL",
    'split="train")': 'split="train", cache_dir="cache")',
    "steps=50": "steps=2",
    "steps=60": "steps=3",
    '{"group_size": 8, "problems_per_step": 8}': (
        '{"group_size": 4, "problems_per_step": 3, "population_size": 2, "steps_per_cycle": 2}'
    ),
    '{"max_tokens": 128}': '{"max_tokens": 8}, fast={"anchor_problems": 6, "metric_calls": 24}, evaluation={"k": 1}',
    "max_completion_length=128": "max_completion_length=8",
    "problems=20": "problems=2, k=1",
}
"""What a block of docs/from-trl.md has for a real run, and what takes its place on a tiny model."""


def run_from_trl(block: Block, model: Path, _: Path) -> None:
    """A run as the page has it, and what the page does with it afterwards."""
    Path("sums.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n} + 1", "answer": str(n + 1)}) + "\n" for n in range(30)), encoding="utf-8"
    )
    after = [other for other in of("python") if how(other) == "goes on"] if how(block) == "from trl" else []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for each in (block, *after):
        text = each.text
        for real, small in SMALLER.items():
            text = text.replace(real, small)
        exec(compile(text.replace("MODEL", str(model)), str(each), "exec"), namespace)
    if after:
        assert namespace["result"].steps == 3 and Path("deployed/prompt.txt").is_file()


def next_yaml(block: Block) -> str:
    """The config that follows a Python block on its page."""
    return next(b.text for b in of("yaml") if b.page == block.page and b.line > block.line)


def check_and_train_agent(open_lock: Any, block: Block, model: Path, folder: Path) -> None:
    """The page's agent, with the page's config."""
    lines = [{"prompt": f"Open lock {n}.", "code": str(n * 7 % 900 + 100)} for n in range(60)]
    (folder / "locks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "my_agent.py").write_text(block.text, encoding="utf-8")
    (shown,) = [read_yaml(b.text, str(b)) for b in of("yaml") if "my_agent:open_lock" in b.text]
    records = RecordsTask(
        **shown["task"]["options"]["problems"]["options"], scorer="fastslow.tasks.agents.task:no_scorer"
    )
    check_agent(AgentTask(open_lock, records), plays=lambda problem: ["12", "000", problem.data["record"]["code"]])
    trained = fastslow.train(small_config(model, folder / "run", steps=2, method="rl", **shown))
    assert trained.metrics["episodes/turns"] > 1.0


def write_config(model: Path, path: Path) -> None:
    path.write_text(yaml.safe_dump(tree_of(model)), encoding="utf-8")


def run_loop(block: Block, model: Path, folder: Path) -> None:
    """README's loop is the method's own, statement by statement, and that method runs."""
    source = ast.parse(textwrap.dedent(inspect.getsource(FastSlow.train)))
    shown = [ast.dump(node) for node in ast.parse(block.text).body]
    function: Any = source.body[0]
    real = [ast.dump(node) for node in function.body if not isinstance(node, ast.Expr)]
    assert shown == real[: len(shown)]
    assert fastslow.train(small_config(model, folder / "run", steps=2)).steps == 2


def run_trl_half(block: Block, model: Path, folder: Path) -> None:
    """The half of the page that is TRL's own: run where TRL is installed."""
    compile(block.text, str(block), "exec")
    if find_spec("trl") is not None:
        run_from_trl(block, model, folder)


WHOLE: Mapping[str, Callable[[Block, Path, Path], None]] = {
    "trl half": run_trl_half,
    "from trl": run_from_trl,
    "goes on": lambda block, model, folder: None,  # with the block that it goes on from
    "loop": run_loop,
}
"""Blocks that are run in a way of their own."""


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_a_config_parses(block: Block, tiny_model_dir: Path) -> None:
    tree = {**tree_of(tiny_model_dir), "steps": 100}
    shown = read_yaml(block.text, str(block))
    merged = merge(tree, shown)
    config = parse_config(merged)
    for key, value in flat(shown):
        node: Any = config
        for name in key:
            node = node[name] if isinstance(node, Mapping) else getattr(node, name)
        assert str(node) == str(value) or node == value, f"{'.'.join(key)} is {node!r}"


def merge(tree: dict[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown over a minimal config; a section that changes its kind starts anew."""
    fresh = ("task", "model") if "model" in shown or "task" in shown else ()
    merged = {key: value for key, value in tree.items() if key not in fresh or key not in shown}
    own = isinstance(shown.get("fast"), Mapping) and ":" in str(shown["fast"].get("optimiser", ""))
    if own:
        merged["fast"] = {k: v for k, v in merged["fast"].items() if k in ("anchor_problems", "metric_calls")}
    if "metric_calls" not in shown.get("fast", {}) and "anchor_problems" in shown.get("fast", {}):
        merged["fast"] = {**merged["fast"], "metric_calls": 2 * shown["fast"]["anchor_problems"]}
    for key, value in shown.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def flat(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The scalars of a tree by their keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*prefix, key))
        elif not isinstance(value, list):
            yield (*prefix, key), value


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    assert json.loads(block.text)


def lines_of(block: Block) -> list[str]:
    """The lines of a block, continued ones joined, comments left out."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    return [line for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("block", of("", "bash", "sh", "console"), ids=str)
def test_a_command_parses(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in lines_of(block):
        found = COMMAND.match(line)
        if found:
            words = shlex.split(found[1], comments=True)
            try:
                assert isinstance(build_parser().parse_args(words[1:]), argparse.Namespace)
            except SystemExit as ended:  # an option that says something, and that is all
                assert ended.code == 0, line
            continue
        if line.startswith("make "):
            target = shlex.split(line, comments=True)[1]
            assert re.search(
                rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
            ), line
            continue
        assert block.page in NOT_COMMANDS, f"{block}: {line!r} is no command of ours, and NOT_COMMANDS does not say why"
        if block.page not in ("docs/architecture.md", "docs/run-directory.md"):
            for path in re.findall(r"\b(?:tools|benchmarks|tests|configs|src)/[\w/.]+", line):
                assert (ROOT / path).exists(), f"{block}: {path} does not exist"


def test_every_block_is_of_a_kind_that_is_run() -> None:
    known = {"python", "yaml", "json", "", "bash", "sh", "console"}
    assert [str(block) for block in BLOCKS if block.language not in known] == []
    assert len(BLOCKS) > 40


def test_no_exception_outlives_its_block() -> None:
    assert [words for words in PYTHON if not any(words in block.text for block in of("python"))] == []
    pages = {block.page for block in of("", "bash", "sh", "console")}
    assert set(NOT_COMMANDS) <= pages


def test_files_that_commands_name_exist() -> None:
    for block in of("", "bash", "sh", "console"):
        for line in lines_of(block):
            found = COMMAND.match(line)
            for word in shlex.split(found[1], comments=True) if found else ():
                if word.startswith(("configs/", "src/")):
                    assert (ROOT / word).exists(), f"{block}: {word}"
