"""The rules of the lab's world: what can be done to a list of digits and letters, and how it is said.

An input is 4 to 7 items, digits 0-9 and letters a-f. Operations change the items, in the order of `OPERATIONS`; formats
dress the result, in the order of `FORMATS`. A rule set is any number of both. Every rule has sentences that pretraining
states it in, and one sentence that the verifier says when it was broken. Of those verdicts about half are among the
sentences, the others are in words that the model has never seen: there a proposer must translate, not copy.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Items = tuple[str, ...]
RuleSet = frozenset[str]
Dress = Callable[[Items, Items, Items], Items]
Undress = Callable[[Items], Items | None]

DIGITS, LETTERS = tuple("0123456789"), tuple("abcdef")
CAPITALS = tuple("ABCDEF")
LONG = 5


@dataclass(frozen=True)
class Rule:
    """`sentences` state it, `verdict` is the verifier's sentence about it."""

    name: str
    sentences: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Operation(Rule):
    """`apply(items, original)` gives the new items; `original` is the input, which conditions look at."""

    apply: Callable[[Items, Items], Items]


@dataclass(frozen=True)
class Format(Rule):
    """`dress(words, items, original)` puts it on; `undress(words)` takes it off, None where it is not there."""

    dress: Dress
    undress: Undress


def _rank(item: str) -> int:
    return (*DIGITS, *LETTERS, *CAPITALS).index(item) if item in DIGITS else 10 + ord(item.lower()) - ord("a")


def _capitals(items: Items) -> Items:
    return tuple(item.upper() for item in items)


def _add_one(items: Items) -> Items:
    return tuple(str((int(item) + 1) % 10) if item in DIGITS else item for item in items)


def _swap_ends(items: Items) -> Items:
    return items if len(items) < 2 else (items[-1], *items[1:-1], items[0])


def _wrapped(left: Items, right: Items) -> tuple[Dress, Undress]:
    """Both ways of a format that puts fixed words in front of the items and behind them."""

    def undress(words: Items) -> Items | None:
        end = len(words) - len(right)
        there = len(left) <= end and words[: len(left)] == left and words[end:] == right
        return words[len(left) : end] if there else None

    return lambda words, items, original: (*left, *words, *right), undress


def _with_commas(words: Items, items: Items, original: Items) -> Items:
    return tuple(itertools.chain.from_iterable((",", word) for word in words))[1:]


def _without_commas(words: Items) -> Items | None:
    # One item has no comma to show, and none to miss.
    kept = len(words) < 2 or (len(words) % 2 == 1 and set(words[1::2]) == {","} and "," not in words[::2])
    return words[::2] if kept and words else None


def _with_count(words: Items, items: Items, original: Items) -> Items:
    return (*words, "=", str(len(items)))


def _without_count(words: Items) -> Items | None:
    return words[:-2] if len(words) > 1 and words[-2] == "=" and words[-1] in DIGITS else None


def _with_star(words: Items, items: Items, original: Items) -> Items:
    return (*words, "*") if set(original) & set(LETTERS) else words


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "digits_only",
        ("Drop the letters.", "Keep only the digits.", "Leave all letters out."),
        "Alphabetic symbols do not belong in it.",
        lambda items, original: tuple(item for item in items if item in DIGITS),
    ),
    Operation(
        "dedup",
        ("Drop repeated items.", "Keep each item only once.", "Leave duplicates out."),
        "Drop repeated items.",
        lambda items, original: tuple(dict.fromkeys(items)),
    ),
    Operation(
        "drop_small",
        ("Drop digits below five.", "Keep no digit under five.", "Leave small digits out."),
        "Numerals smaller than five were to be discarded.",
        lambda items, original: tuple(item for item in items if item not in DIGITS[:5]),
    ),
    Operation(
        "drop_first",
        ("Drop the first item.", "Start from the second item.", "Leave the first item out."),
        "Start from the second item.",
        lambda items, original: items[1:],
    ),
    Operation(
        "add_one",
        ("Add one to every digit.", "Raise each digit by one.", "Make every digit one bigger."),
        "Numerals should have been incremented.",
        lambda items, original: _add_one(items),
    ),
    Operation(
        "capitals",
        ("Write letters in capitals.", "Make every letter big.", "Use capital letters."),
        "Use capital letters.",
        lambda items, original: _capitals(items),
    ),
    Operation(
        "ascending",
        ("Sort the items upwards.", "Order the items from low to high.", "Put the lowest item first."),
        "Arrange from the smallest up.",
        lambda items, original: tuple(sorted(items, key=_rank)),
    ),
    Operation(
        "descending",
        ("Sort the items downwards.", "Order the items from high to low.", "Put the highest item first."),
        "It ought to run from the largest down.",
        lambda items, original: tuple(sorted(items, key=_rank, reverse=True)),
    ),
    Operation(
        "reverse",
        ("Reverse the items.", "Write the items backwards.", "Give the items in the opposite order."),
        "Write the items backwards.",
        lambda items, original: items[::-1],
    ),
    Operation(
        "long_reverse",
        (
            "If there are more than five items, reverse them.",
            "Reverse long lists.",
            "Turn the list around if it has over five items.",
        ),
        "Anything exceeding five entries gets flipped.",
        lambda items, original: items[::-1] if len(original) > LONG else items,
    ),
    Operation(
        "swap_ends",
        ("Swap the first and the last item.", "Exchange both ends.", "Let the two outer items trade places."),
        "Its extremes were to change seats.",
        lambda items, original: _swap_ends(items),
    ),
    Operation(
        "repeat_last",
        ("Repeat the last item.", "Say the last item twice.", "Double the final item."),
        "Double the final item.",
        lambda items, original: (*items, *items[-1:]),
    ),
)

FORMATS: tuple[Format, ...] = (
    Format(
        "commas",
        (
            "Put commas between the items.",
            "Separate the items with commas.",
            "Use a comma after each item but the last.",
        ),
        "Separate the items with commas.",
        _with_commas,
        _without_commas,
    ),
    Format(
        "brackets",
        ("Put brackets around the items.", "Write the list in brackets.", "Use [ and ]."),
        "Square parentheses should enclose it.",
        *_wrapped(("[",), ("]",)),
    ),
    Format(
        "count",
        ("Say how many items you wrote.", "Give the number of items after the list.", "Count your items at the end."),
        "Its length must be reported.",
        _with_count,
        _without_count,
    ),
    Format(
        "tags",
        ("Write answer tags around it.", "Put the answer in tags.", "Use <answer> and </answer>."),
        "Put the answer in tags.",
        *_wrapped(("<answer>",), ("</answer>",)),
    ),
    Format(
        "star",
        (
            "If there is a letter, put a star at the end.",
            "Mark lists with letters by a star.",
            "Add a star where letters occur.",
        ),
        "Alphabetic input deserves an asterisk.",
        _with_star,
        lambda words: words[:-1] if words[-1:] == ("*",) else None,
    ),
    Format(
        "result",
        ("Start with the word result.", "Say result before the list.", "Begin your answer with result."),
        "Say result before the list.",
        *_wrapped(("result", ":"), ()),
    ),
    Format(
        "done",
        ("Say done at the end.", "Finish with the word done.", "Close with done."),
        "A closing confirmation is lacking.",
        *_wrapped((), ("done",)),
    ),
)

OPERATION_NAMES = tuple(rule.name for rule in OPERATIONS)
FORMAT_NAMES = tuple(rule.name for rule in FORMATS)
RULES: dict[str, Rule] = {rule.name: rule for rule in (*OPERATIONS, *FORMATS)}

NOTHING_ELSE = ("Do nothing else.", "Change nothing more.", "Do only what is said.")
"""Sentences that tell the model to keep its habits out of the answer."""
NOTHING_ELSE_VERDICT = "Do only what is said."

FILLERS = ("Be careful.", "Read the list.", "Think before you answer.", "Work step by step.", "The answer is checked.")
SEED_PROMPT = "You are a helpful assistant."

CONDITIONAL = frozenset({"long_reverse", "star"})
"""Rules that hold on some inputs only."""

# Rules that undo or repeat one another: no rule set has two of one line.
CONFLICTS = (
    ("ascending", "descending", "reverse", "long_reverse"),
    ("digits_only", "capitals"),
    ("digits_only", "star"),
)


def is_consistent(rules: Iterable[str]) -> bool:
    """Whether no two of the rules undo or repeat each other."""
    chosen = set(rules)
    return all(len(chosen & set(group)) < 2 for group in CONFLICTS)


def operate(items: Sequence[str], rules: Iterable[str]) -> Items:
    """The items after the operations of a rule set."""
    active, original = set(rules), tuple(items)
    current = original
    for rule in OPERATIONS:
        if rule.name in active:
            current = rule.apply(current, original)
    return current


def answer(items: Sequence[str], rules: Iterable[str]) -> Items:
    """The words of the right answer to an input under a rule set."""
    active, original = set(rules), tuple(items)
    kept = operate(items, active)
    words = kept
    for rule in FORMATS:
        if rule.name in active:
            words = rule.dress(words, kept, original)
    return words


def shows_all(items: Sequence[str], hidden: RuleSet) -> bool:
    """Whether an input shows every rule of a set: without any one, conditions left out, the answer is another one."""
    right = answer(items, hidden)
    return all(answer(items, hidden - {name}) != right for name in hidden - CONDITIONAL)


def undress(words: Sequence[str]) -> tuple[Items, RuleSet]:
    """The items of an answer, and the formats it shows. An inverse of `answer`'s dressing, whatever was dressed."""
    rest, shown = tuple(words), set()
    for rule in reversed(FORMATS):
        inner = rule.undress(rest)
        if inner is not None:
            rest = inner
            shown.add(rule.name)
    return rest, frozenset(shown)


@functools.lru_cache(maxsize=4096)
def explanations(items: Items) -> dict[Items, tuple[RuleSet, ...]]:
    """By the result, which sets of up to three operations give it."""
    found: dict[Items, list[RuleSet]] = {}
    for size in range(4):
        for names in itertools.combinations(OPERATION_NAMES, size):
            if is_consistent(names):
                found.setdefault(operate(items, names), []).append(frozenset(names))
    return {result: tuple(sets) for result, sets in found.items()}


def findings(items: Sequence[str], words: Sequence[str], hidden: RuleSet) -> tuple[list[str], bool]:
    """The hidden rules that an answer breaks, and whether it does something that no hidden rule asks for.

    Both are empty for the right answer. Items that no few operations explain break every hidden operation that changes
    this input, since nothing says which one was tried.
    """
    original = tuple(items)
    if tuple(words) == answer(original, hidden):
        return [], False
    broken, extra = _broken(original, tuple(words), hidden)
    # Everything is there, and yet it is not right: a wrong count, or a format on the wrong side of another.
    return (broken, extra) if broken or extra else ([name for name in RULES if name in hidden], False)


def _broken(original: Items, words: Items, hidden: RuleSet) -> tuple[list[str], bool]:
    inner, shown = undress(words)
    wanted = [name for name in FORMAT_NAMES if name in hidden and _shows(name, original)]
    broken = [name for name in wanted if name not in shown]
    if len(inner) < 2:
        shown -= {"commas"}
    extra = bool(shown - hidden)
    operations = [name for name in OPERATION_NAMES if name in hidden]
    if inner == operate(original, hidden):
        return broken, extra
    sets = explanations(original).get(inner, ())
    if not sets:
        without = [name for name in operations if operate(original, hidden - {name}) != operate(original, hidden)]
        return [*(without or operations), *broken], extra
    # The nearest explanation; of two, the one that says something was left out, not that something was added.
    best = min(sets, key=lambda names: (len(names ^ frozenset(operations)), len(names)))
    missing = [name for name in operations if name not in best]
    return [*missing, *broken], extra or bool(best - hidden)


def _shows(name: str, original: Items) -> bool:
    """Whether a format can be seen at all on an input: a star needs a letter."""
    return name != "star" or bool(set(original) & set(LETTERS))
