"""The model's card: what it was trained on, how, and what was measured on the weights that are shipped.

Every number goes through the local engine and the task's scorer, as in a run. `measure` is deterministic for given
weights, so that a test can repeat a part of it and compare.
"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastslow.lab import rules
from fastslow.lab.corpus import draw_stated, phrases
from fastslow.lab.pretrain import Recipe
from fastslow.lab.tasks import HELD_OUT, WORLDS, LabTask, RuleTask, World, right_prompts
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.runs.directory import write_atomically
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig
from fastslow.tasks.base import Task
from fastslow.types import Problem, Prompt

WEIGHTS, CARD, PHRASEBOOK = "model.safetensors", "card.json", "phrasebook.json"
LONGEST_ANSWER = 24
AS_EVALUATED = SamplingParams(LONGEST_ANSWER, temperature=0.6, top_p=0.95)
AS_TRAINED = SamplingParams(LONGEST_ANSWER, temperature=1.0)

SYNONYMS = {
    "alphabetic": ["letter", "letters"],
    "symbols": ["letters", "items"],
    "belong": ["leave", "keep", "out"],
    "numerals": ["digit", "digits"],
    "smaller": ["below", "under", "small", "lowest"],
    "discarded": ["drop", "leave", "out"],
    "incremented": ["add", "raise", "bigger"],
    "arrange": ["sort", "order", "put"],
    "smallest": ["low", "lowest", "first"],
    "up": ["upwards"],
    "run": ["order", "sort", "read"],
    "largest": ["high", "highest"],
    "down": ["downwards"],
    "exceeding": ["more", "over"],
    "entries": ["items"],
    "flipped": ["reverse", "turn", "backwards"],
    "extremes": ["ends", "outer", "first", "last"],
    "change": ["swap", "exchange", "trade"],
    "seats": ["places"],
    "square": ["[", "]"],
    "parentheses": ["brackets"],
    "enclose": ["around"],
    "length": ["number", "count", "many"],
    "reported": ["say", "give", "write"],
    "input": ["list", "lists"],
    "asterisk": ["star"],
    "deserves": ["add", "put", "mark"],
    "closing": ["end", "close", "finish"],
    "confirmation": ["done", "word"],
}
"""What the verifier's unseen words may stand for, among the words of pretraining."""


def write_phrasebook(directory: Path) -> None:
    """The sentences that the model knows, for the lesson proposer."""
    record = {"phrases": list(phrases()), "synonyms": SYNONYMS}
    write_atomically(directory / PHRASEBOOK, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def load(directory: Path) -> PolicyEngine:
    """The engine that a run on this model would have."""
    return LocalEngine(ModelConfig(name=str(directory)))


def measure(directory: Path, floor_samples: int = 16384) -> dict[str, Any]:
    """Accuracy per rule, on stated sets and on the tasks under their right prompts, and the floors of the tasks."""
    engine = load(directory)
    return {
        "sha256": file_hash(directory / WEIGHTS),
        "megabytes": round((directory / WEIGHTS).stat().st_size / 1e6, 2),
        "rules": {name: rule_accuracy(engine, name) for name in rules.RULES},
        "stated_sets": stated_accuracy(engine),
        "tasks": {name: measure_task(engine, name, floor_samples) for name in WORLDS},
    }


def rule_accuracy(engine: PolicyEngine, name: str, problems: int = 64) -> float:
    """Share of exact answers where one rule alone is stated, over its sentences, with "do nothing else" beside it."""
    task = RuleTask(World(f"only-{name}", {"": frozenset([name])}, ""), train=problems, validation=0, test=0)
    pairs = [
        (problem, Prompt.of("\n".join([rules.SEED_PROMPT, sentence, rules.NOTHING_ELSE[0]])))
        for problem in task.problems("train")
        for sentence in rules.RULES[name].sentences
    ]
    return _share(engine, task, pairs, AS_EVALUATED)


def stated_accuracy(engine: PolicyEngine, sets: int = 200, problems: int = 4) -> dict[str, float]:
    """Share of exact answers by the number of rules stated, on sets as pretraining draws them."""
    rng = random.Random(derive_seed("card", "stated"))
    shares: dict[int, list[float]] = {}
    for number in range(sets):
        chosen = draw_stated(rng)
        task = RuleTask(World(f"set{number}", {"": chosen}, ""), train=problems, validation=0, test=0)
        (prompt,) = right_prompts(task.world).values()
        pairs = [(problem, prompt) for problem in task.problems("train")]
        shares.setdefault(min(len(chosen), 5), []).append(_share(engine, task, pairs, AS_EVALUATED))
    return {str(size): sum(values) / len(values) for size, values in sorted(shares.items()) if size}


def measure_task(engine: PolicyEngine, name: str, floor_samples: int) -> dict[str, float]:
    """Accuracy on validation problems under the right prompt, slice by slice, and the rate of success by chance."""
    task = LabTask(name)
    pairs = [
        (problem, prompt)
        for kind, prompt in right_prompts(task.world).items()
        for problem in task.problems("validation")
        if problem.kind == kind
    ]
    successes = floor_successes(engine, task, floor_samples)
    low, high = wilson_interval(successes, floor_samples)
    return {
        "right_prompt": _share(engine, task, pairs * 4, AS_EVALUATED),
        "floor": successes / floor_samples,
        "floor_low": low,
        "floor_high": high,
        "floor_samples": floor_samples,
    }


def floor_successes(engine: PolicyEngine, task: Task, samples: int) -> int:
    """How many of some samples under the seed prompt, at temperature 1 over the training problems, are right."""
    problems = task.problems("train")[: min(1024, samples)]
    requests = [
        RolloutRequest(problem, task.seed_prompt, samples // len(problems), derive_seed("card", "floor", problem.id))
        for problem in problems
    ]
    groups = make_rollouts(engine, task, requests, AS_TRAINED, "rl")
    return sum(rollout.reward == 1.0 for group in groups for rollout in group)


def wilson_interval(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate. Source: Wilson (1927)."""
    share = successes / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_card(directory: Path, recipe: Recipe, pretraining: dict[str, object], measured: dict[str, object]) -> None:
    """card.json, which the test reads, and README.md, which people read."""
    card = {"recipe": asdict(recipe), "pretraining": pretraining, **measured}
    write_atomically(directory / CARD, json.dumps(card, indent=1) + "\n")
    write_atomically(directory / "README.md", card_text(card))


def card_text(card: dict[str, Any]) -> str:
    """The card in words."""
    recipe, made = card["recipe"], card["pretraining"]
    tasks = "\n".join(
        f"| {name} | {_hidden(name)} | {row['right_prompt']:.2f} | {_floor(row)} |"
        for name, row in card["tasks"].items()
    )
    accuracy = "\n".join(
        f"| {name} | {rules.RULES[name].sentences[0]} | {_seen(name)} | {share:.2f} |"
        for name, share in card["rules"].items()
    )
    by_size = ", ".join(f"{n}{'+' if n == '5' else ''}: {share:.2f}" for n, share in card["stated_sets"].items())
    return f"""---
license: apache-2.0
library_name: transformers
---
# fastslow-lab

A Llama of {made["parameters"] / 1e6:.2f} M parameters that answers a list of digits and letters by the rules that its
system prompt states. It exists to measure Fast-Slow Training on a laptop. It knows {made["vocabulary"]} words and
nothing else.

## Data
Made by `fastslow.lab.corpus`: {made["examples"]:,} questions, {made["tokens"] / 1e6:.1f} M tokens, none of it from
outside. A system prompt states up to three operations and three formats, each in one of three sentences. In the second
stage answers also keep rules that nobody stated ("habits"), the more so the fewer are stated. The {len(HELD_OUT)} rule
sets of the tasks below, and all larger sets that contain one, are left out: the model has never seen them, stated or
by habit.

## Recipe
`fastslow lab pretrain`: {recipe["stated_steps"]} steps on stated rules, then {recipe["habit_steps"]} with habits, each
of {recipe["rows"]} prompts with {recipe["turns"]} questions; Muon {recipe["muon_learning_rate"]}, AdamW
{recipe["learning_rate"]}, seed {recipe["seed"]}.
It took {made["seconds"] / 60:.0f} minutes on {made["machine"]}. Last loss {made["loss"]:.3f} nats a token.
Weights: float16, {card["megabytes"]} MB, SHA-256 `{card["sha256"]}`.

## Tasks
Right prompt: share of exact answers on validation problems at temperature 0.6 and top-p 0.95, all hidden rules stated.
Floor: share of right answers under the seed prompt at temperature 1, with a 95 % interval; RL starts from it.

| task | hidden rules | right prompt | floor |
|---|---|---|---|
{tasks}

## Rules
Share of exact answers at temperature 0.6 when the rule alone is stated, "{rules.NOTHING_ELSE[0]}" beside it. The
verdict is the verifier's sentence for the rule: seen in pretraining, or in words that the model does not know.

| rule | sentence | verdict | accuracy |
|---|---|---|---|
{accuracy}

Several rules at once, by their number: {by_size}.

## Limits
It is no language model for anything else, and what is measured with it says nothing about large models.

## Licence
Apache-2.0.
"""


def _share(engine: PolicyEngine, task: Task, pairs: Sequence[tuple[Problem, Prompt]], params: SamplingParams) -> float:
    requests = [
        RolloutRequest(problem, prompt, 1, derive_seed("card", index, problem.id))
        for index, (problem, prompt) in enumerate(pairs)
    ]
    groups = make_rollouts(engine, task, requests, params, "rl")
    rewards = [rollout.reward for group in groups for rollout in group if rollout.reward is not None]
    return sum(rewards) / len(rewards)


def _hidden(name: str) -> str:
    slices = WORLDS[name].slices
    return "; ".join(f"{kind + ': ' if kind else ''}{', '.join(sorted(hidden))}" for kind, hidden in slices.items())


def _floor(row: dict[str, float]) -> str:
    if row["floor"] == 0:
        return f"0 of {row['floor_samples']:.0f}"
    return f"{row['floor']:.3%} ({row['floor_low']:.3%} to {row['floor_high']:.3%})"


def _seen(name: str) -> str:
    rule = rules.RULES[name]
    return "seen" if rule.verdict in rule.sentences else f"unseen: “{rule.verdict}”"
