"""What a metric is: a name, its unit and meaning, where it comes from, and how values merge. See `metrics.py`."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from fastslow.section import OURS


class Merge(Enum):
    """How the values of several steps become one; what it is called in the glossary."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "highest"
    LAST = "last"
    NONE = "none"


class Start(Enum):
    """What a step has of a metric before anything happened in it, as JSON writes it."""

    # Texts, since two members with equal values (0 and 0.0) would be one.
    COUNT = "0"
    AMOUNT = "0.0"
    NULL = "null"
    MISSING = "missing"


@dataclass(frozen=True)
class Metric:
    """One metric. Its name may have places: `<task>` stands for the name of a task, `@k` for the completions a problem.

    `meaning` is one line of a table; `more` are further sentences. `merge` says what several steps make together,
    `start` what a step begins with.
    """

    name: str
    unit: str
    meaning: str
    source: str = OURS
    merge: Merge = Merge.LAST
    start: Start = Start.MISSING
    more: str = ""

    def key(self, *, k: int | None = None, task: str | None = None, name: str | None = None) -> str:
        """The name in a line, its places filled. Raises ValueError where a place is left, or there is none to fill."""
        found = self.name
        for place, value in (("@k", None if k is None else f"@{k}"), ("<task>", task), ("<name>", name)):
            if (place in found) != (value is not None):
                raise ValueError(f"metric {self.name!r}: {place} is {'missing' if value is None else 'no part of it'}")
            found = found.replace(place, value or "")
        return found

    @property
    def group(self) -> str:
        """What stands before the first slash: who writes it."""
        return self.name.partition("/")[0]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a name in a line must look like."""
        text = re.escape(self.name).replace("@k", r"@(?P<k>\d+)").replace("<task>", "(?P<task>.+)")
        text = text.replace("<name>", ".+")
        return re.compile(text)


@dataclass(frozen=True)
class Found:
    """What the name in a line stands for: the metric, and what fills its places."""

    metric: Metric
    k: int | None = None
    task: str | None = None
