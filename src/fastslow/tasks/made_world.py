"""A made world of people, towns, guilds and rivers: pages about them,
and questions whose answer lies several pages away.

Nothing in it is known from elsewhere, so that only a search finds an answer. Words of names are shared by many, names
are not. What a question is about, from its first page to its last, belongs to one split alone: who knows the pages of
the training split by heart knows nothing of the others.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastslow.errors import TaskError
from fastslow.tasks.bm25 import Page

WORDS = 120
CRAFTS = (
    "weaver",
    "glazier",
    "cooper",
    "potter",
    "joiner",
    "saddler",
    "printer",
    "mason",
    "brewer",
    "tanner",
    "dyer",
    "smith",
)
PLACES = ("Port", "Fort", "Upper", "Lower", "Old", "New", "East", "West", "North", "South", "Great", "Little")
WATERS = ("River", "Brook", "Creek", "Canal", "Stream", "Burn", "Beck", "Rill", "Water", "Bourne", "Channel", "Run")
_ONSETS = tuple(
    ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gr", "kr", "tr"]
)
_VOWELS, _CODAS = tuple("aeiou"), tuple("lmnrstx")

RELATIONS: Mapping[str, Mapping[str, str]] = {
    "person": {
        "birthplace": "the town where {x} was born",
        "teacher": "the person from whom {x} learned the craft",
        "guild": "the guild that {x} joined",
    },
    "town": {"river": "the water on which {x} lies", "mayor": "the best known mayor of {x}"},
    "guild": {"seat": "the town that is the seat of {x}", "founder": "the founder of {x}"},
    "river": {},
}
"""By kind of page: what it names, and how a question says it."""
ASKED: Mapping[str, str] = {
    "person": "In which year was {x} born?",
    "town": "In which year was {x} founded?",
    "guild": "In which year was {x} founded?",
    "river": "How many kilometres long is {x}?",
}
SHARES: Mapping[str, tuple[int, int]] = {"river": (12, 3), "town": (6, 4), "guild": (6, 4), "person": (2, 8)}
"""How many of a kind there are: one for so many questions, and so many more."""


@dataclass
class Thing:
    """What a page is about: its kind, its name, its one number, and what it names."""

    kind: str
    name: str
    number: int
    craft: str = ""
    names: dict[str, "Thing"] = field(default_factory=dict)

    def page(self) -> Page:
        """Its page. The number stands there once, and no other."""
        name, names = self.name, {relation: other.name for relation, other in self.names.items()}
        if self.kind == "person":
            text = (
                f"{name} was a {self.craft} born in {names['birthplace']} in {self.number}. {name} learned the craft "
                f"from {names['teacher']} and joined {names['guild']}."
            )
        elif self.kind == "town":
            text = (
                f"{name} is a town on {names['river']}, founded in {self.number}. The best known mayor of {name} was "
                f"{names['mayor']}."
            )
        elif self.kind == "guild":
            text = (
                f"{name} is a guild with its seat in {names['seat']}, founded in {self.number} by {names['founder']}."
            )
        else:
            text = f"{name} is a water of {self.number} kilometres."
        return Page(name, text)


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the titles of the pages that lead there, first to last."""

    text: str
    answer: int
    titles: tuple[str, ...]


class Names:
    """Names that nobody else in the world has. Raises TaskError where there are no more."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"made world {seed}")
        words: dict[str, None] = {}
        while len(words) < 4 * WORDS:
            syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(2)]
            words["".join([*syllables, rng.choice(_CODAS)]).capitalize()] = None
        made = list(words)
        self.given, self.family, self.towns, self.waters = (made[i * WORDS : (i + 1) * WORDS] for i in range(4))
        self.taken: set[str] = set()

    def draw(self, kind: str, rng: random.Random) -> str:
        """A new name for a thing of that kind."""
        for _ in range(10_000):
            name = {
                "person": lambda: f"{rng.choice(self.given)} {rng.choice(self.family)}",
                "town": lambda: f"{rng.choice(PLACES)} {rng.choice(self.towns)}",
                "guild": lambda: f"the {rng.choice(CRAFTS).capitalize()}s of {rng.choice(self.towns)}",
                "river": lambda: f"{rng.choice(self.waters)} {rng.choice(WATERS)}",
            }[kind]()
            if name not in self.taken:
                self.taken.add(name)
                return name
        raise TaskError(f"task.options: the problems need more names of kind {kind!r} than there are: ask for fewer")


def made_things(questions: int, names: Names, rng: random.Random) -> list[Thing]:
    """A part of the world that is large enough for so many questions; its things name each other and nothing else."""
    by_kind: dict[str, list[Thing]] = {}
    for kind, (share, more) in SHARES.items():
        by_kind[kind] = [
            Thing(kind, names.draw(kind, rng), rng.randint(40, 999) if kind == "river" else rng.randint(1100, 1899))
            for _ in range(questions // share + more)
        ]
    kinds = {"birthplace": "town", "teacher": "person", "guild": "guild", "river": "river", "mayor": "person"}
    kinds |= {"seat": "town", "founder": "person"}
    things = [thing for group in by_kind.values() for thing in group]
    for thing in things:
        thing.craft = rng.choice(CRAFTS)
        for relation in RELATIONS[thing.kind]:
            thing.names[relation] = rng.choice([other for other in by_kind[kinds[relation]] if other is not thing])
    return things


def made_questions(things: list[Thing], hops: int, rng: random.Random) -> Iterator[Question]:
    """Different questions over `hops` pages, without end where there are enough; none comes twice."""
    asked: set[str] = set()
    vain = 0
    while vain < 2000:
        thing = rng.choice(things)
        way, words = [thing], thing.name
        while len(way) < hops and RELATIONS[way[-1].kind]:
            relation = rng.choice(list(RELATIONS[way[-1].kind]))
            words = RELATIONS[way[-1].kind][relation].format(x=words)
            way.append(way[-1].names[relation])
        text = ASKED[way[-1].kind].format(x=words)
        vain += 1
        if len(way) == hops and len({step.name for step in way}) == hops and text not in asked:
            vain = 0
            asked.add(text)
            yield Question(text, way[-1].number, tuple(step.name for step in way))
