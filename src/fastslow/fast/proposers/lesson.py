"""A proposer without any LLM: it edits its parent by the most frequent lesson that the verifier's feedback names.

Feedback is one finding a line. A finding that is a rule ("Put the final answer in \\boxed{}.") comes back word for word
from many rollouts; one about a single problem ("The correct answer is 13.") does not. So the most frequent line is the
lesson. What a built-in scorer says of one problem's answer never is, nor is a line that is only a name and a number,
such as a reward function without words gives. The edit is to add the lesson, to put it in place of an earlier one, or,
where there is nothing to add, to drop one.
The recipe `full` starts again from the prompt's first line. With a phrase book a lesson is said in words that the
policy knows: a guess, which may take the place of an earlier guess at the same lesson.
"""

import random
from collections import Counter
from collections.abc import Sequence

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Example, Proposal, Proposer
from fastslow.fast.proposers.phrasebook import Phrasebook
from fastslow.fast.proposers.settings import LessonConfig
from fastslow.resources import resolve_path
from fastslow.slow.engine import PolicyEngine
from fastslow.text import is_bare_number
from fastslow.types import Prompt

REPLACE_PROBABILITY = 0.15
RETRY_PROBABILITY = 0.5
# Where answers are few (yes and no, letters), such lines come back as often as rules do.
OF_ONE_PROBLEM = ("The reference answer is ", "The correct answer is ", "The answer was ")


def check(config: LessonConfig) -> None:
    """Raises ConfigError for a phrase book that cannot be read."""
    _phrasebook(config)


def build(config: LessonConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    return LessonProposer(config.max_prompt_chars, _phrasebook(config), rewrite=config.recipe == "full")


def _phrasebook(config: LessonConfig) -> Phrasebook | None:
    path = config.phrasebook
    return None if path is None else Phrasebook.read(resolve_path(path, "fast.proposer.phrasebook"))


class LessonProposer:
    """Adds, replaces or drops one line. The first line of a prompt, the seed's, always stays."""

    def __init__(
        self, max_prompt_chars: int = 16000, phrasebook: Phrasebook | None = None, *, rewrite: bool = False
    ) -> None:
        self.max_prompt_chars, self.phrasebook, self.rewrite = max_prompt_chars, phrasebook, rewrite

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """The parent with one lesson more, or one line less where all of them stand. Raises ReflectionError."""
        rng = random.Random(seed)
        lines = parent.as_dict()[component].splitlines() or [""]
        # What another component says already need not be said twice.
        known = [line for part in parent.as_dict().values() for line in part.splitlines()]
        lessons = count_lessons(examples, known)
        text = self._edit(lines, lessons, rng)
        if len(text) > self.max_prompt_chars:
            raise ReflectionError(
                f"the edited prompt has {len(text)} characters, more than {self.max_prompt_chars}",
                Usage(refused=1),
                text,
            )
        return Proposal(text, Usage())

    def _edit(self, lines: Sequence[str], lessons: Counter[str], rng: random.Random) -> str:
        if not lessons:
            if len(lines) < 2:
                raise ReflectionError("the feedback names nothing that the prompt does not say", Usage(refused=1))
            return "\n".join(_without(lines, rng.randrange(1, len(lines))))
        if self.rewrite:
            return self._rewritten(lines[:1], lessons, rng)
        lesson = rng.choices(list(lessons), weights=list(lessons.values()))[0]
        sentence, tried = self._say(lesson, lines, rng)
        if tried and rng.random() < RETRY_PROBABILITY:
            lines = _without(lines, rng.choice(tried))
        elif len(lines) > 1 and rng.random() < REPLACE_PROBABILITY:
            lines = _without(lines, rng.randrange(1, len(lines)))
        return "\n".join([*lines, sentence])

    def _rewritten(self, first: Sequence[str], lessons: Counter[str], rng: random.Random) -> str:
        lines = list(first)
        for lesson in lessons:
            lines.append(self._say(lesson, lines, rng)[0])
        return "\n".join(lines)

    def _say(self, lesson: str, lines: Sequence[str], rng: random.Random) -> tuple[str, list[int]]:
        """A sentence for a lesson, and the positions of lines that are earlier guesses at it.

        Raises ReflectionError where the phrase book has nothing (more) to say.
        """
        if self.phrasebook is None:
            return lesson, []
        options = self.phrasebook.translations(lesson)
        tried = [index for index, line in enumerate(lines) if index and line in options]
        fresh = {phrase: weight for phrase, weight in options.items() if phrase not in lines}
        if not fresh:
            raise ReflectionError("the phrase book has no other words for what the feedback names", Usage(refused=1))
        return rng.choices(list(fresh), weights=list(fresh.values()))[0], tried


def count_lessons(examples: Sequence[Example], known: Sequence[str]) -> Counter[str]:
    """How many failed examples name each lesson, the lessons that the prompt already has left out.

    A line that only one failure names speaks of its problem, not of the task, and is no lesson,
    unless nothing but that one example was looked at.
    """
    said = {normalise(line) for line in known}
    failed = [example for example in examples if example.reward < 1.0]
    counts: Counter[str] = Counter()
    for example in failed:
        lines = dict.fromkeys(" ".join(line.split()) for line in example.feedback.splitlines())
        counts.update(line for line in lines if may_teach(line) and normalise(line) not in said)
    needed = min(2, len(examples))
    return Counter({line: count for line, count in counts.items() if count >= needed})


def may_teach(line: str) -> bool:
    """Whether a line of feedback can be a lesson: it has words, and they are not of one problem's answer."""
    return bool(line) and not is_bare_number(line) and not line.startswith(OF_ONE_PROBLEM)


def normalise(line: str) -> str:
    """Two lines say the same when they differ in blanks, case or a full stop only."""
    return " ".join(line.lower().split()).rstrip(".")


def _without(lines: Sequence[str], index: int) -> list[str]:
    return [line for position, line in enumerate(lines) if position != index]
