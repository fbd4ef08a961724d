"""A phrase book puts a finding into words that the policy knows; the lesson proposer tries them out."""

import json
import random
from pathlib import Path

import pytest

from fastslow.errors import ConfigError, ReflectionError
from fastslow.fast.proposers.base import Example
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.fast.proposers.phrasebook import Phrasebook
from fastslow.fast.proposers.registry import check_proposer
from fastslow.fast.proposers.settings import proposer_config
from fastslow.types import Prompt

BOOK = Phrasebook(
    ("Sort the items.", "Write the items backwards.", "Put tags around the answer.", "Say done."),
    {"flipped": ("backward", "reverse"), "confirmation": ("done",)},
)


def failed(feedback: str) -> Example:
    return Example("question", "answer", 0.0, feedback)


def test_a_phrase_stays_as_it_is() -> None:
    assert BOOK.translations("Say done.") == {"Say done.": 1.0}


def test_words_that_only_a_synonym_connects_find_their_phrase() -> None:
    found = BOOK.translations("It must be flipped!")
    assert list(found) == ["Write the items backwards."]
    assert sum(BOOK.translations("Flipped items.").values()) == pytest.approx(1.0)


def test_rarer_words_count_more() -> None:
    found = BOOK.translations("items with tags")
    assert next(iter(found)) == "Put tags around the answer."


def test_nothing_in_common_gives_nothing() -> None:
    assert BOOK.translations("Completely otherwise") == {}


def test_the_proposer_writes_a_phrase_and_never_the_unknown_words() -> None:
    proposer = LessonProposer(phrasebook=BOOK)
    for seed in range(20):
        text = proposer.propose(Prompt.of("seed"), "system", [failed("A confirmation lacks.")] * 2, seed=seed).text
        assert text == "seed\nSay done."


def test_a_guess_that_did_not_help_gives_way_to_another() -> None:
    proposer = LessonProposer(phrasebook=BOOK)
    parent = Prompt.of("seed\nWrite the items backwards.")
    texts = {
        proposer.propose(parent, "system", [failed("The items were wrong.")] * 2, seed=seed).text for seed in range(60)
    }
    assert "seed\nSort the items." in texts
    assert "seed\nWrite the items backwards.\nSort the items." in texts


def test_a_finding_that_no_phrase_can_say_is_refused_not_copied() -> None:
    with pytest.raises(ReflectionError, match="no other words"):
        LessonProposer(phrasebook=BOOK).propose(Prompt.of("seed"), "system", [failed("Hm")] * 2, seed=0)


def test_the_full_recipe_starts_from_the_first_line() -> None:
    proposer = LessonProposer(phrasebook=BOOK, rewrite=True)
    examples = [failed("Say done."), failed("Say done."), failed("Sort the items."), failed("Sort the items.")]
    text = proposer.propose(Prompt.of("seed\nold line"), "system", examples, seed=0).text
    assert text.splitlines()[0] == "seed"
    assert set(text.splitlines()[1:]) == {"Say done.", "Sort the items."}


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    path.write_text(json.dumps({"phrases": ["Say done."], "synonyms": {"Words": ["done"]}}), encoding="utf-8")
    assert Phrasebook.read(path).translations("words") == {"Say done.": 1.0}


@pytest.mark.parametrize("text", ["no json", "[]", '{"phrases": []}', '{"phrases": ["a"], "synonyms": ["b"]}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "book.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fast\.proposer\.phrasebook"):
        check_proposer(proposer_config(phrasebook=str(path)))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json"):
        check_proposer(proposer_config(phrasebook=str(tmp_path / "missing.json")))


def test_weights_are_drawn_from_and_add_up() -> None:
    rng = random.Random(0)
    finding = " ".join(rng.sample(["items", "tags", "answer", "done"], 3))
    weights = BOOK.translations(finding)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert all(weight > 0 for weight in weights.values())
