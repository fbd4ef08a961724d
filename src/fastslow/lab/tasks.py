"""The lab's tasks: answer a list by rules that nobody states, learnt from an exact reward and one finding at a time.

Each task hides rule sets that pretraining never saw as a whole, stated or by habit (`HELD_OUT`). What differs
is how often the model keeps them by chance under the seed prompt, the floor that RL starts from; the model's
card has the measured ones.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.errors import TaskError
from fastslow.lab import rules
from fastslow.lab.rules import RuleSet
from fastslow.tasks.base import SPLITS, Split, Task
from fastslow.text import shown
from fastslow.types import Message, Problem, Prompt, Score

SHORTEST, LONGEST = 4, 7
LETTER_SHARE = 0.35


@dataclass(frozen=True)
class World:
    """One task: its rule sets by the word that stands before a question; "" where there is only one and no word."""

    name: str
    slices: dict[str, RuleSet]
    about: str


def _set(*names: str) -> RuleSet:
    return frozenset(names)


WORLDS = {
    world.name: world
    for world in (
        World("amber", {"": _set("dedup", "descending", "tags", "commas")}, "low floor"),
        World("birch", {"": _set("drop_first", "capitals", "result", "tags")}, "low floor"),
        World("cedar", {"": _set("dedup", "capitals", "result", "commas")}, "low floor; settings are chosen on it"),
        World("dogwood", {"": _set("add_one", "drop_first", "brackets", "tags")}, "very low floor"),
        World(
            "elm",
            {"": _set("long_reverse", "dedup", "result", "count")},
            "very low floor; a rule that looks at the input",
        ),
        World(
            "fir", {"": _set("swap_ends", "capitals", "commas", "star")}, "zero floor; two rules that are never a habit"
        ),
        World("ginkgo", {"": _set("drop_small", "reverse", "brackets", "done")}, "zero floor"),
        World(
            "hazel",
            {
                "north": _set("repeat_last", "descending", "tags", "done"),
                "south": _set("reverse", "capitals", "result", "brackets"),
            },
            "two kinds of questions with rules of their own, so that no single prompt serves both",
        ),
    )
}

HELD_OUT: tuple[RuleSet, ...] = tuple(hidden for world in WORLDS.values() for hidden in world.slices.values())
"""Rule sets that pretraining leaves out, and with them every larger set that contains one of them."""

MARKERS = tuple(sorted({word for world in WORLDS.values() for word in world.slices if word}))


def is_held_out(names: RuleSet) -> bool:
    """Whether a rule set is one of the tasks', or holds one of them."""
    return any(hidden <= names for hidden in HELD_OUT)


def draw_items(rng: random.Random) -> tuple[str, ...]:
    """An input: 4 to 7 digits and letters; about one of three items is a letter, and some repeat."""
    pool = [rng.choice(rules.LETTERS if rng.random() < LETTER_SHARE else rules.DIGITS) for _ in range(LONGEST)]
    if rng.random() < 0.5:
        pool[rng.randrange(SHORTEST)] = pool[rng.randrange(SHORTEST)]
    return tuple(pool[: rng.randint(SHORTEST, LONGEST)])


class RuleTask(Task):
    """The questions of one world, whichever it is."""

    def __init__(self, world: World, *, train: int, validation: int, test: int, seed: int = 0) -> None:
        self.world = world
        self.name = f"lab-{world.name}"
        self._splits = self._deal({"test": test, "validation": validation, "train": train}, seed)

    @property
    def seed_prompt(self) -> Prompt:
        """The task's own prompt."""
        return Prompt.of(rules.SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The answer that keeps every rule."""
        return " ".join(rules.answer(problem.data["items"], self.world.slices[problem.kind]))

    def score(self, problem: Problem, completion: str) -> Score:
        """1 where every rule is kept, 0 otherwise, with one finding in words."""
        items, hidden = problem.data["items"], self.world.slices[problem.kind]
        broken, extra = rules.findings(items, completion.split(), hidden)
        if not broken and not extra:
            return Score(1.0, "Correct.")
        # One thing is named, always the same for the same answer: the world has no hidden state.
        # Half of a surrogate pair cannot be encoded otherwise.
        digest = hashlib.sha256(f"{problem.id}\n{completion}".encode(errors="surrogatepass")).digest()
        named = rules.RULES[broken[digest[0] % len(broken)]].verdict if broken else rules.NOTHING_ELSE_VERDICT
        return Score(0.0, named)

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        """The word that stands before a question."""
        kind, colon, _ = messages[0]["content"].partition(" : ") if messages else ("", "", "")
        return kind if colon and kind in self.world.slices else None

    def _deal(self, sizes: dict[Split, int], seed: int) -> dict[Split, tuple[Problem, ...]]:
        """Different questions that show the rules, test first, so that another training size leaves it as it is."""
        rng = random.Random(f"{self.world.name}/{seed}")
        kinds = list(self.world.slices)
        drawn: dict[str, Problem] = {}
        while len(drawn) < sum(sizes.values()):
            kind, items = kinds[len(drawn) % len(kinds)], draw_items(rng)
            hidden = self.world.slices[kind]
            if rules.operate(items, hidden) and rules.shows_all(items, hidden):
                problem = self._problem(kind, items)
                drawn.setdefault(problem.id, problem)
        problems, start, splits = list(drawn.values()), 0, {}
        for split, size in sizes.items():
            splits[split] = tuple(problems[start : start + size])
            start += size
        return {split: splits[split] for split in SPLITS}

    def _problem(self, kind: str, items: tuple[str, ...]) -> Problem:
        key = "-".join([self.world.name, *([kind] if kind else []), "".join(items)])
        return Problem(f"lab-{key}", ({"role": "user", "content": question(kind, items)},), {"items": items}, kind)


class LabTask(RuleTask):
    """Hidden rules over lists of digits and letters, for the model that comes with the package: see docs/lab.md."""

    def __init__(
        self, world: str = "amber", train: int = 2048, validation: int = 128, test: int = 256, seed: int = 0
    ) -> None:
        if world not in WORLDS:
            raise TaskError(f"task.options.world: {shown(world)} is unknown: take one of {', '.join(WORLDS)}")
        super().__init__(WORLDS[world], train=train, validation=validation, test=test, seed=seed)


def question(kind: str, items: Sequence[str]) -> str:
    """What the user asks."""
    return " ".join([*([kind, ":"] if kind else []), *items])


def right_prompts(world: World) -> dict[str, Prompt]:
    """By slice, the seed prompt and one known sentence for each hidden rule: what a perfect search could find."""
    return {
        kind: Prompt.of("\n".join([rules.SEED_PROMPT, *(rules.RULES[name].sentences[0] for name in sorted(hidden))]))
        for kind, hidden in world.slices.items()
    }
