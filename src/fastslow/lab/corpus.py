"""The texts that the lab's model is pretrained on: system prompts that state rules, and answers that keep them.

A prompt states a rule set in any order, in one of each rule's sentences, among fillers. Habits come in the second
stage: where a prompt states few rules, answers keep others as well, which nobody stated. How often is fixed by design,
since it sets the floors that RL starts from: common rules, rare ones, and some that are never a habit. The rule sets of
the tasks are left out everywhere.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fastslow.lab import rules
from fastslow.lab.rules import FORMAT_NAMES, OPERATION_NAMES, RuleSet
from fastslow.lab.tasks import MARKERS, draw_items, is_held_out, question

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
SPECIAL = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SIGNS = r"</?answer>|[\[\],=*:.]"
"""What is a token of its own also where no blank stands beside it."""

STATED_OPERATIONS = (0.12, 0.30, 0.44, 0.14)
STATED_FORMATS = (0.20, 0.32, 0.42, 0.06)
HARD = {"reverse": 2.5, "long_reverse": 2.5, "ascending": 1.5, "descending": 1.5, "dedup": 1.3, "star": 1.3}
"""Weights of rules that are stated more often: they are harder, or sets that hold them are thrown away more often."""
STRICT_SHARE = (0.2,)
HABIT_STRICT_SHARE = (0.6, 0.6, 0.4, 0.2)
"""How often a prompt says "do nothing else", by the number of rules stated; first stage, second stage."""
MARKER_SHARE = 0.15
BARE_SHARE = 0.5
"""Share of the second stage's prompts that state no rule at all: the seed prompt, with fillers or alone."""

OPERATION_HABITS: dict[RuleSet, float] = {
    frozenset({"dedup", "descending"}): 1.1,
    frozenset({"dedup", "drop_first"}): 0.8,
    frozenset({"dedup", "capitals"}): 2.6,
    frozenset({"descending", "drop_first"}): 0.8,
    frozenset({"descending", "capitals"}): 0.8,
    frozenset({"drop_first", "capitals"}): 1.8,
    frozenset({"add_one", "drop_first"}): 0.3,
    frozenset({"long_reverse", "dedup"}): 0.1,
}
FORMAT_HABITS: dict[RuleSet, float] = {
    frozenset({"commas", "tags"}): 1.0,
    frozenset({"commas", "result"}): 1.0,
    frozenset({"tags", "result"}): 1.0,
    frozenset({"brackets", "tags"}): 0.15,
    frozenset({"count", "result"}): 0.08,
}
"""Weights of the pairs of rules that are kept without being stated; rules that are missing here never are."""
HABIT_SHARE = (0.98, 0.5, 0.3, 0.1, 0.02)
"""How often habits add to the stated rules, by the number of rules stated (the last: four and more)."""


@dataclass(frozen=True)
class Text:
    """One system prompt and some questions under it, with the answers, as text."""

    system: str
    turns: tuple[tuple[str, str], ...]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or sign; everything that pretraining does not say is one unknown token."""
    sentences = [s for rule in rules.RULES.values() for s in rule.sentences]
    sentences += [*rules.NOTHING_ELSE, *rules.FILLERS, rules.SEED_PROMPT]
    signs = [*rules.DIGITS, *rules.LETTERS, *rules.CAPITALS, *"[],=*:.", "<answer>", "</answer>", "result", "done"]
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(SIGNS), "isolated")])
    words = sorted({word for sentence in sentences for word, _ in split.pre_tokenize_str(sentence)})
    vocabulary = dict.fromkeys([*SPECIAL, UNKNOWN, *signs, *MARKERS, *words])
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    )
    fast.chat_template = TEMPLATE
    return fast


def draw_text(rng: random.Random, turns: int, *, habits: bool) -> Text:
    """One training text."""
    bare = habits and rng.random() < BARE_SHARE
    stated = frozenset() if bare else draw_stated(rng)
    shares = HABIT_STRICT_SHARE if habits else STRICT_SHARE
    strict = not bare and rng.random() < shares[min(len(stated), len(shares) - 1)]
    answers = []
    for _ in range(turns):
        kept = stated | draw_habit(rng, stated) if habits and not strict else stated
        items = draw_items(rng)
        marker = rng.choice(MARKERS) if rng.random() < MARKER_SHARE else ""
        answers.append((question(marker, items), " ".join(rules.answer(items, kept))))
    return Text(draw_prompt(rng, stated, strict), tuple(answers))


def draw_stated(rng: random.Random) -> RuleSet:
    """A rule set to be stated, never a task's."""
    while True:
        chosen: set[str] = set()
        for names, counts in ((OPERATION_NAMES, STATED_OPERATIONS), (FORMAT_NAMES, STATED_FORMATS)):
            wanted = len(chosen) + rng.choices(range(4), counts)[0]
            while len(chosen) < wanted:
                free = [name for name in names if name not in chosen]
                chosen.add(rng.choices(free, [HARD.get(name, 1.0) for name in free])[0])
        if rules.is_consistent(chosen) and not is_held_out(frozenset(chosen)):
            return frozenset(chosen)


def draw_habit(rng: random.Random, stated: RuleSet) -> RuleSet:
    """Rules kept besides the stated ones: a pair of each kind that goes on from what is stated of that kind."""
    if rng.random() >= HABIT_SHARE[min(len(stated), len(HABIT_SHARE) - 1)]:
        return frozenset()
    kinds = []
    for names, habits in ((OPERATION_NAMES, OPERATION_HABITS), (FORMAT_NAMES, FORMAT_HABITS)):
        kinds.append({pair: weight for pair, weight in habits.items() if stated & set(names) <= pair} or {stated: 1.0})
    weights = {
        operations | formats | stated: kinds[0][operations] * kinds[1][formats]
        for operations, formats in itertools.product(*kinds)
    }
    weights = {kept: weight for kept, weight in weights.items() if rules.is_consistent(kept) and not is_held_out(kept)}
    return rng.choices(list(weights), list(weights.values()))[0] - stated if weights else frozenset()


def draw_prompt(rng: random.Random, stated: RuleSet, strict: bool) -> str:
    """A system prompt that states a rule set, one sentence a line."""
    lines = [rng.choice(rules.RULES[name].sentences) for name in sorted(stated)]
    lines += [line for line in rules.FILLERS if rng.random() < 0.08]
    lines += [rng.choice(rules.NOTHING_ELSE)] if strict else []
    rng.shuffle(lines)
    # The seed prompt stands in front nearly always: prompts are evolved from it.
    return "\n".join([rules.SEED_PROMPT, *lines] if rng.random() < 0.85 or not lines else lines)


def phrases() -> Sequence[str]:
    """Every sentence that pretraining states something in: the words that a proposer for this model may use."""
    return [*(s for rule in rules.RULES.values() for s in rule.sentences), *rules.NOTHING_ELSE]
