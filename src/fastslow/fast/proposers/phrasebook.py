"""A phrase book: from a finding in the verifier's words to sentences that the policy knows.
A translator without an LLM.

A phrase book is a JSON file, {"phrases": [sentence, ...], "synonyms": {word: [word, ...]}}. A finding is compared with
every phrase by the words that they share, rare words counting more, after its words have been widened
by their synonyms. What comes out is a guess: several phrases are offered with weights, and the search
finds out which one serves.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fastslow.errors import ConfigError

GUESSES = 6
SHARPNESS = 2.0
WORD = re.compile(r"[^\W_]+|[^\w\s.,]")


@dataclass(frozen=True)
class Phrasebook:
    """Sentences that the policy knows, and what other words stand for."""

    phrases: tuple[str, ...]
    synonyms: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: str | Path) -> "Phrasebook":
        """Raises ConfigError for a file that is missing or is no phrase book."""
        try:
            tree = json.loads(Path(path).read_text(encoding="utf-8"))
            phrases, synonyms = tree["phrases"], tree.get("synonyms", {})
            if not phrases or not all(isinstance(phrase, str) for phrase in phrases):
                raise ValueError("'phrases' must be a list of sentences")
            return cls(tuple(phrases), {stem(word): tuple(map(stem, others)) for word, others in synonyms.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"fast.proposer.phrasebook: {str(path)!r} is no phrase book: {type(error).__name__}: {error}. It must "
                f'hold {{"phrases": [...], "synonyms": {{...}}}}'
            ) from error

    def translations(self, finding: str) -> dict[str, float]:
        """Phrases that may say what a finding says, with weights that add up to 1;
        the finding alone where it is a phrase.

        Empty where no phrase shares a word with it.
        """
        if finding in self.phrases:
            return {finding: 1.0}
        said = {stem(word) for word in words(finding)}
        widened = said.union(*(self.synonyms.get(word, ()) for word in said))
        frequency = Counter(word for phrase in self.phrases for word in {stem(word) for word in words(phrase)})
        scores: dict[str, float] = {}
        for phrase in self.phrases:
            own = {stem(word) for word in words(phrase)}
            weights = {word: math.log(1.0 + len(self.phrases) / frequency[word]) for word in own}
            shared = sum(weights[word] for word in own & widened)
            if shared:
                scores[phrase] = (shared / math.sqrt(sum(weights.values()))) ** SHARPNESS
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:GUESSES]
        total = sum(score for _, score in best)
        return {phrase: score / total for phrase, score in best}


def words(text: str) -> list[str]:
    """Lower-case words and signs of a text; blanks, full stops and commas say nothing."""
    return WORD.findall(text.lower())


def stem(word: str) -> str:
    """A word in lower case, without the plural's s."""
    return word.lower().removesuffix("s") if len(word) > 3 else word.lower()
