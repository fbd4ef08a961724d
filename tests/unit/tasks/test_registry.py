"""From names to tasks, and what is said to a name or an option that is wrong."""

import sys

import pytest

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.registry import BUILT_IN, build_task, list_tasks, load_object
from fastslow.tasks.settings import TaskConfig
from fastslow.tasks.star_graph import StarGraphTask
from fastslow.types import Prompt

SIZES = {"train": 4, "validation": 2, "test": 2}
STAR = {"d": 2, "p": 3, "n": 9, **SIZES}
MODULE = """
from fastslow.tasks.base import Task
from fastslow.tasks.star_graph import StarGraphTask

class Mine(StarGraphTask):
    name = "mine"

def anything(**options):
    return Mine(**options)

def not_a_task():
    return 3

def oddly_annotated(x: "Nowhere" = 1):
    return Mine(d=2, p=3, n=9, train=4, validation=2, test=2)

value = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(MODULE)
    (tmp_path / "my_broken_task.py").write_text("1 / 0")
    yield
    sys.modules.pop("my_task", None)


def build(name, options=None, seed_prompt=None):
    return build_task(TaskConfig(name=name, options=options or {}, seed_prompt=seed_prompt))


def test_every_kind_of_name():
    assert isinstance(build("star_graph", STAR), StarGraphTask)
    assert build("reasoning_gym:gcd", SIZES).name == "reasoning_gym:gcd"
    assert build("my_task:Mine", STAR).name == "mine"
    assert build("my_task:anything", STAR).name == "mine"
    assert build("my_task:oddly_annotated", {"x": "text"}).name == "mine"


def test_a_seed_prompt_of_the_configs():
    task = build("star_graph", STAR, "Find the way.")
    assert task.seed_prompt == Prompt.of("Find the way.")
    assert build("star_graph", STAR).seed_prompt != task.seed_prompt
    assert len(task.problems("train")) == 4
    assert build("star_graph", STAR, {"system": "Find the way."}).seed_prompt == task.seed_prompt
    with pytest.raises(TaskError, match=r"seed_prompt: has the components \['tool'\], those of task 'star_graph' are"):
        build("star_graph", STAR, {"tool": "x"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "star_grap",
            {},
            r"task.name: 'star_grap' is unknown. Did you mean star_graph\? Known: star_graph, codeio, hover, records",
        ),
        ("chain_sum", {}, "Did you mean reasoning_gym:chain_sum"),
        ("zzzzzzz", {}, "'zzzzzzz' is unknown. Known: star_graph"),
        ("reasoning_gym:gdc", {}, "no generator 'gdc'"),
        ("no_such:Thing", {}, "'no_such:Thing' cannot be imported: No module named 'no_such'"),
        ("my_task:Yours", {}, "cannot be imported: module 'my_task' has no attribute 'Yours'"),
        ("my_broken_task:Mine", {}, "cannot be imported: division by zero"),
        ("my_task:value", {}, "'my_task:value' is 3, which cannot be called"),
        ("my_task:not_a_task", {}, "gave 3, which is not a fastslow Task: subclass it"),
        (
            "star_graph",
            {"trian": 3},
            r"task.options.trian: unknown for 'star_graph'. Did you mean 'train'\? Known: d, p, n",
        ),
        ("star_graph", {"d": 2.5}, "task.options.d: Input should be a valid integer, got 2.5"),
        ("star_graph", {"d": True}, "task.options.d: Input should be a valid integer, got True"),
        ("reasoning_gym:gcd", {"params": [1]}, "task.options.params: Input should be a valid dictionary"),
        ("reasoning_gym:gcd", {"generator": "lcm"}, "task.options.generator: unknown"),
        ("codeio", {}, "task.options.pairs: is missing: task 'codeio' needs it"),
        ("records", {}, "task.options.data: is missing"),
        ("records", {"data": 3}, "task.options.data: .*got 3"),
    ],
)
def test_one_clear_error(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, options)


def test_a_failed_import_leaves_the_path_as_it_was():
    before = list(sys.path)
    with pytest.raises(ConfigError):
        load_object("my_broken_task:Mine", "task.name")
    load_object("my_task:Mine", "task.name")
    assert sys.path == before


def test_the_list_has_every_task_with_one_line():
    tasks = dict(list_tasks())
    assert list(tasks)[: len(BUILT_IN)] == list(BUILT_IN)
    assert {"reasoning_gym:chain_sum", "reasoning_gym:zebra_puzzles"} <= tasks.keys()
    assert all(line and "\n" not in line for line in tasks.values())
    assert tasks["star_graph"].startswith("Star graphs (d, p, n)")


def test_the_list_without_reasoning_gym(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert [name for name, _ in list_tasks()] == [*BUILT_IN, "textarena:<game>", "reasoning_gym:<generator>"]


def test_a_game_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(ConfigError, match=r"textarena is not installed: pip install 'fastslow\[textarena\]'"):
        build_task(TaskConfig(name="textarena:GuessTheNumber-v0"))
