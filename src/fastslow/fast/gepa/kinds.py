"""Problems of several kinds: the prompt search works on one kind at a time.

Where a task knows kinds (`Problem.kind`: a subject, a data set), no single prompt need serve all of them. A minibatch
that mixes kinds teaches rules that exclude each other, and a prompt that serves one kind hides that nothing serves
another. So each proposal looks at one kind, in turn: its parent, its minibatch, what counts as luck, and the first
anchors of its child are those of the kind. A kind that nothing serves yet is searched from its own newest edit, and one
slot of the population is kept for that edit. With one kind everything is as in gepa. Not in the paper.
"""

import itertools
import random
from collections.abc import Sequence

from gepa.gepa_utils import select_program_candidate_from_pareto_front

from fastslow.fast.gepa.adapter import CycleAdapter, State
from fastslow.fast.pareto import Scores, is_luck, mean_score
from fastslow.types import Prompt


class Kinds:
    """The kinds among a cycle's anchors: whose turn it is, its parent, its minibatch; what a population must keep."""

    def __init__(self, adapter: CycleAdapter, minibatch: int, rng: random.Random) -> None:
        self.adapter, self.minibatch, self.rng = adapter, minibatch, rng
        self.positions: dict[str, list[int]] = {}
        """By kind the positions of its problems in the list of anchors."""
        for position, problem in enumerate(adapter.anchors):
            self.positions.setdefault(problem.kind, []).append(position)
        self.heads: dict[str, Prompt] = {}
        """By kind that nothing serves: the newest prompt that its search has accepted."""
        self._turns = itertools.cycle(sorted(self.positions))

    @property
    def several(self) -> bool:
        """Whether there is more than one kind."""
        return len(self.positions) > 1

    def like(self, position: int) -> list[int]:
        """Positions of the anchors that are of the same kind as one of them."""
        return self.positions[self.adapter.anchors[position].kind]

    def unserved(self, position: int, state: State) -> bool:
        """Whether no candidate in gepa's pool scores more than luck on the kind of an anchor."""
        like = self.like(position)
        return all(is_luck(row[index] for index in like if index in row) for row in state.prog_candidate_val_subscores)

    def accept(self, child: Prompt, position: int, state: State) -> None:
        """Book an accepted child: in the search for a kind that nothing serves it is the next parent."""
        kind = self.adapter.anchors[position].kind
        head = self.heads.get(kind)
        if self.unserved(position, state) and (head is None or self.adapter.newer(child, head)):
            self.heads[kind] = child

    # -- during a cycle ------------------------------------------------------------------------------------------------

    def draw(self, state: State) -> tuple[int, list[int]]:
        """The next kind's parent, as a position among gepa's candidates, and the anchors of its minibatch,
        as positions.
        """
        kind = next(self._turns)
        like = self.positions[kind]
        if self.unserved(like[0], state):
            parent = self._head(kind, [Prompt.from_dict(item) for item in state.program_candidates])
        else:
            fronts = {key: front for key, front in state.get_pareto_front_mapping().items() if key in set(like)}
            parent = select_program_candidate_from_pareto_front(fronts, state.per_program_tracked_scores, self.rng)
        shown = [position for position in like if position < self.adapter.shown]
        return parent, self.rng.sample(shown, min(self.minibatch, len(shown)))

    def _head(self, kind: str, candidates: Sequence[Prompt]) -> int:
        """The newest edit of a kind's search; before the first, the shortest prompt with the fewest complaints."""
        if kind in self.heads and self.heads[kind] in candidates:
            return candidates.index(self.heads[kind])
        problems = [self.adapter.anchors[position] for position in self.positions[kind]]
        known = [prompt for prompt in candidates if all((prompt.hash, p.id) in self.adapter.known for p in problems)]
        head = min(known, key=lambda prompt: (self.adapter.complaints(prompt, problems), len(str(prompt.components))))
        self.heads[kind] = head
        return candidates.index(head)

    # -- before and after a cycle --------------------------------------------------------------------------------------

    def neglected(self, pool: Sequence[tuple[Prompt, Scores]]) -> bool:
        """Whether there are several kinds and one that no prompt of a pool serves."""
        return self.several and any(
            all(is_luck(scores.values()) for _, scores in self.of_kind(kind, pool)) for kind in self.positions
        )

    def of_kind(self, kind: str, pool: Sequence[tuple[Prompt, Scores]]) -> list[tuple[Prompt, Scores]]:
        """The part of each prompt's scores that is of one kind; prompts without any left out."""
        ids = [self.adapter.anchors[position].id for position in self.positions[kind]]
        parts = [(prompt, {name: scores[name] for name in ids if name in scores}) for prompt, scores in pool]
        return [(prompt, scores) for prompt, scores in parts if scores]

    def comparable(self, scores: Scores) -> Scores:
        """Scores with zeros for kinds that a prompt was not scored on, so that its mean is not its own kind's alone."""
        filled = dict(scores)
        for positions in self.positions.values():
            ids = [self.adapter.anchors[position].id for position in positions]
            if scores and not any(name in scores for name in ids):
                filled |= dict.fromkeys(ids, 0.0)
        return filled

    def reserved(self, pool: Sequence[tuple[Prompt, Scores]]) -> list[int]:
        """Positions in a pool that the next population must keep: the best prompt for each kind,
        or its search's newest edit.

        Best kinds first. Empty where there is one kind.
        """
        if not self.several:
            return []
        prompts = [prompt for prompt, _ in pool]
        kept: list[tuple[float, int]] = []
        for kind in self.positions:
            part = self.of_kind(kind, pool)
            if all(is_luck(scores.values()) for _, scores in part):
                kept += [(0.0, prompts.index(head)) for head in [self.heads.get(kind)] if head in prompts]
            else:
                best, scores = max(part, key=lambda entry: (*self._rank(kind, entry[1]), prompts.index(entry[0])))
                kept.append((mean_score(scores), prompts.index(best)))
        return list(dict.fromkeys(index for _, index in sorted(kept, reverse=True)))

    def best(self, population: Sequence[Prompt], pool: Sequence[tuple[Prompt, Scores]]) -> dict[str, Prompt]:
        """By kind the member of a population that scored best on the kind's anchors; of equals, the first.

        Empty where there is one kind.
        """
        if not self.several:
            return {}
        found = {}
        for kind in self.positions:
            ranks = {prompt: self._rank(kind, scores) for prompt, scores in self.of_kind(kind, pool)}
            found[kind] = max(population, key=lambda prompt: ranks.get(prompt, (False, 0.0)))
        return found

    def _rank(self, kind: str, scores: Scores) -> tuple[bool, float]:
        """Prompts that were scored on all anchors of a kind first, unless they scored nothing; then the mean."""
        mean = mean_score(scores)
        return mean > 0.0 and len(scores) == len(self.positions[kind]), mean
