"""Tool descriptions and skills as components of a prompt: shown, evolved, refused where nobody would read them."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fastslow
from fastslow.errors import ConfigError, TaskError
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Evaluation
from fastslow.fast.proposers.base import ProposalRequest
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.fast.proposers.reflection_prompt import Wording, render_messages
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.tasks.base import Task
from fastslow.tasks.components import described, descriptions_of, with_skills
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.tasks.tool_calls import write_call
from fastslow.testing.tasks import check_task
from fastslow.types import Completion, Problem, Prompt
from speaker import Speaker, roll

from runs import small_config
from toy import LettersTask, TalkTask

DESCRIPTION = "Increment the internal counter."
FIXTURE = Path(__file__).parents[2] / "fixtures" / "trl" / "record_trl.py"


def template() -> str:
    """A chat template that shows tools."""
    spec = importlib.util.spec_from_file_location("record_trl", FIXTURE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.TEMPLATE)


def environment(tmp_path: Path, name: str, seed_prompt: Any) -> Task:
    return build_task(TaskConfig(name="environment", options=options_of(tmp_path, name), seed_prompt=seed_prompt))


def options_of(tmp_path: Path, name: str) -> dict[str, Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Count, {i}.", "target": 2}) + "\n" for i in range(12)))
    return {"environment": f"trl_environments:{name}", "data": str(path), "splits": {"train": 8, "validation": 4}}


# -- what they are -----------------------------------------------------------------------------------------------------


def test_skills_stand_under_the_system_text_each_under_its_name() -> None:
    prompt = Prompt.from_dict({"system": "Be brief.", "tool:x": "y"})
    shown = with_skills(prompt, {"search": "Search twice.", "answer": "One word.", "empty": " "})
    assert shown.as_dict() == {
        "system": "Be brief.\n\n# answer\n\nOne word.\n\n# search\n\nSearch twice.",
        "tool:x": "y",
    }
    assert with_skills(Prompt.of(""), {"a": "b"}).system == "# a\n\nb"


def test_a_description_changes_in_a_copy_of_the_tool_alone() -> None:
    function = {"name": "f", "description": "old", "parameters": {}}
    tools = [{"type": "function", "function": function}, {"name": "bare", "description": "other"}]
    made = described(tools, {"f": "new", "bare": "newer"})
    assert descriptions_of(made) == {"tool:f": "new", "tool:bare": "newer"}
    assert descriptions_of(tools) == {"tool:f": "old", "tool:bare": "other"}


@pytest.mark.parametrize("shown", [True, False], ids=["in the template", "in words"])
def test_the_policy_reads_the_description_of_its_prompt(shown: bool, tmp_path: Path) -> None:
    task = environment(tmp_path, "TargetEnv", {"system": "Go.", "tool:increment": None})
    assert task.seed_prompt.as_dict() == {"system": "Go.", "tool:increment": DESCRIPTION}
    engine = Speaker("done", template=template() if shown else None)
    requests = [
        RolloutRequest(task.problems("train")[0], prompt, 1, 0)
        for prompt in (task.seed_prompt, task.seed_prompt.replace("tool:increment", "Steps of 1 to 3."))
    ]
    made = make_rollouts(engine, task, requests, SamplingParams(8), "rl")
    contexts = [engine.tokenizer.decode(group[0].turns[0].context_tokens) for group in made]
    assert DESCRIPTION in contexts[0] and "Steps of 1 to 3." not in contexts[0]
    assert "Steps of 1 to 3." in contexts[1] and DESCRIPTION not in contexts[1]
    assert made[0][0].prompt_hash != made[1][0].prompt_hash


def test_a_skill_is_possible_for_every_task_and_for_episodes() -> None:
    prompt = Prompt.from_dict({"system": "go", "skill:letters": "Use e."})
    for task in (LettersTask(), TalkTask()):
        seeded = task.with_seed_prompt(prompt)
        check_task(seeded, again=seeded)
        evolved = prompt.replace("skill:letters", "Use i.")
        messages = seeded.messages(seeded.problems("train")[0], evolved)
        assert messages[0]["content"] == "go\n\n# letters\n\nUse i."
    ((rollout,),) = roll(Speaker("x"), seeded)
    assert rollout.prompt_hash == prompt.hash
    again = seeded.with_seed_prompt(prompt.replace("skill:letters", "Use o."))
    assert again.messages(again.problems("train")[0], again.seed_prompt)[0]["content"].endswith("Use o.")


def test_an_environment_that_has_skills_includes_them_itself(tmp_path: Path) -> None:
    task = environment(tmp_path, "ManualEnv", {"system": "Go.", "skill:manual": None, "tool:read_manual": "Read it."})
    assert task.seed_prompt.as_dict()["skill:manual"] == "Steps are small."
    evolved = task.seed_prompt.replace("skill:manual", "Steps are 1 to 3.")
    problem = task.problems("train")[0]
    episode = task.episode(problem, evolved)
    assert "Steps" not in episode.start()[0]["content"]
    assert episode.step(write_call("read_manual", {}))[0]["content"] == "Steps are 1 to 3."
    episode.close()
    plain = task.episode(problem, task.seed_prompt)
    plain.start()
    assert plain.step(write_call("read_manual", {}))[0]["content"] == "Steps are small."
    assert (plain.tool_calls, plain.tool_errors) == (1, ())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"system": "x", "tool:jump": "y"}, TaskError, r"there may also be skill:<name>, tool:increment"),
        (
            {"system": "x", "tool:jump": None},
            ConfigError,
            r"'tool:jump' is null, .* It has one for system, tool:increment",
        ),
        ({"tool:increment": "y"}, TaskError, r"has the components \['tool:increment'\], those of task .* \['system'\]"),
        ({"system": "x", "skill:": "y"}, TaskError, "skill:<name>"),
        ({"system": "x", "memory": "y"}, TaskError, "skill:<name>"),
    ],
)
def test_what_nobody_would_read_is_refused(given: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        environment(tmp_path, "TargetEnv", given)


def test_reflection_is_told_what_it_writes() -> None:
    prompt = Prompt.from_dict({"system": "s", "tool:f": "t", "skill:g": "u"})
    asked = {
        name: render_messages(ProposalRequest(prompt, name, (), 0), Wording(max_prompt_chars=900), 900)[0][
            "content"
        ].split("\n")[0]
        for name in prompt.as_dict()
    }
    assert asked["system"].endswith("You improve the part of that prompt named 'system'.")
    assert "'tool:f': the description of the tool 'f'" in asked["tool:f"]
    assert "'skill:g': a skill" in asked["skill:g"]


# -- they evolve -------------------------------------------------------------------------------------------------------


class Obedient(Speaker):
    """Takes a step of 9, and is refused; where the lesson of that stands in its context, it counts to 2."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        made = []
        for request in requests:
            context = self.tokenizer.decode(request.context_tokens)
            first = context.split("<|user|>")[0]
            answered = "<|tool|>" in context
            step = 2 if "a step is 1 to 3" in first else 9
            text = "Done." if answered else write_call("increment", {"step": step})
            ids = (*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id)
            made.append([Completion(ids, (-1.0,) * len(ids), "stop")] * request.n)
        return made


@pytest.mark.parametrize("component", ["tool:increment", "skill:counting", "system"])
def test_the_lesson_proposer_evolves_components_from_episodes(component: str, tmp_path: Path) -> None:
    own = {"system": "Go.", **({component: "Count."} if component != "system" else {})}
    task = environment(tmp_path, "TargetEnv", own)
    engine = Obedient()

    def evaluate(pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        requests = [RolloutRequest(problem, prompt, 1, 0) for prompt, problem in pairs]
        made = make_rollouts(engine, task, requests, SamplingParams(8), "gepa")
        return [Evaluation(prompt, problem, tuple(g)) for (prompt, problem), g in zip(pairs, made, strict=True)]

    optimiser = GepaOptimiser(LessonProposer(), task.seed_prompt, metric_calls=80, reflection_minibatch=3)
    evolution = optimiser.evolve(
        [task.seed_prompt], task.problems("train"), evaluate, size=2, seed=1, previous_scores={}
    )
    best = evolution.population[0]
    assert "a step is 1 to 3" in "\n".join(best.as_dict().values())
    accepted = [c for c in evolution.candidates if c.accepted and c.parent_hash is not None]
    changed = {name for c in accepted for name, text in c.prompt.components if text != task.seed_prompt.as_dict()[name]}
    assert component in changed
    assert max(sum(c.scores.values()) / len(c.scores) for c in accepted if c.scores) == 1.0


def test_a_run_evolves_them_and_writes_them_down(tiny_model_dir: Path, tmp_path: Path) -> None:
    options = options_of(tmp_path, "TargetEnv")
    seed_prompt = {"system": "go", "tool:increment": None, "skill:counting": "Count."}
    config = small_config(
        tiny_model_dir, tmp_path / "run", task={"name": "environment", "options": options, "seed_prompt": seed_prompt},
        steps=1, method="prompt", episodes={"max_turns": 1}, evaluation={"every": 0}, fast={"metric_calls": 30},
    )  # fmt: skip
    fastslow.train(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "prompts.jsonl").read_text().splitlines()]
    assert all(set(line["components"]) == set(seed_prompt) for line in lines)
    assert len({json.dumps(line["components"]) for line in lines}) > 1
