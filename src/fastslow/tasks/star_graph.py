"""The star-graph task of arXiv 2605.12484: find the one path from the centre of a star to the goal.

A problem (d, p, n): a source of degree d; a gold path of p nodes from source to goal, both included; d - 1 decoy arms
hung on the source, each a chain of p fresh nodes. All d * p nodes are drawn without replacement from 0..n-1.
Ours, where the paper is silent: the wording of the question and of the seed prompt, and that each "u,v" pair has its
two ends in random order, since edges are undirected. The seed prompt names the format, so that RL alone can know it.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from fastslow.errors import TaskError
from fastslow.tasks.base import SPLITS, Split, Task
from fastslow.tasks.formats import FORMATS, answer_part, last_boxed
from fastslow.types import Problem, Prompt, Score

SEED_PROMPT = (
    "You are given a graph and find the path from the source node to the goal node. "
    "Put the nodes of the path, from source to goal and separated by commas, in \\boxed{}."
)
QUESTION = "The edges of an undirected graph:\n{edges}\n\nFind the path from node {source} to node {goal}."
LIST_RULE = "Inside \\boxed{}, write node numbers separated by commas and nothing else."
SOURCE_RULE = "The path must start at the source node."
EDGE_RULE = "Every step of the path must follow an edge of the graph."
GOAL_RULE = "The path must end at the goal node."


class StarGraphTask(Task):
    """Star graphs (d, p, n): find the path from the source to the goal among d - 1 decoy arms; no partial credit."""

    name = "star_graph"

    def __init__(
        self,
        d: int = 25,
        p: int = 20,
        n: int = 500,
        train: int = 10000,
        validation: int = 200,
        test: int = 200,
        seed: int = 0,
    ) -> None:
        _check_shape(d, p, n)
        self.d, self.p, self.n, self.seed = d, p, n, seed
        sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        self._splits = self._deal(sizes)

    @property
    def seed_prompt(self) -> Prompt:
        """The task's own prompt."""
        return Prompt.of(SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The path from start to goal."""
        return ",".join(map(str, problem.data["path"]))

    def score(self, problem: Problem, completion: str) -> Score:
        """1 for the path from start to goal, 0 otherwise, with what is wrong with the answer."""
        gold, decoys = problem.data["path"], problem.data["decoys"]
        boxed = last_boxed(answer_part(completion))
        if boxed is None:
            return Score(0.0, FORMATS["boxed"].rule)
        answer = "".join(boxed.split())
        if answer == ",".join(map(str, gold)):
            return Score(1.0, "Correct.")
        return Score(0.0, "\n".join(_what_went_wrong(answer, gold, decoys)))

    def problem(self, draw: int, key: str) -> Problem:
        """The problem of one draw. The same draw always gives the same problem."""
        rng = self._rng(draw)
        nodes = self._nodes(rng)
        path, decoys = nodes[: self.p], nodes[self.p :].reshape(self.d - 1, self.p)
        arms = np.concatenate([np.full((self.d - 1, 1), path[0]), decoys], axis=1)
        ends = [np.stack([chain[..., :-1].ravel(), chain[..., 1:].ravel()], axis=1) for chain in (path, arms)]
        edges = rng.permutation(np.concatenate(ends))
        flipped = np.where(rng.random((len(edges), 1)) < 0.5, edges, edges[:, ::-1])
        pairs = " ".join(f"{u},{v}" for u, v in flipped.tolist())
        question = QUESTION.format(edges=pairs, source=path[0], goal=path[-1])
        messages = ({"role": "user", "content": question},)
        data = {"path": path.tolist(), "decoys": decoys.tolist()}
        return Problem(f"star_graph-{self.d}x{self.p}x{self.n}-{key}", messages, data)

    def _rng(self, draw: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, draw])

    def _nodes(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.n)[: self.d * self.p]

    def _deal(self, sizes: dict[Split, int]) -> dict[Split, "LazyProblems"]:
        # Test comes first, so that another training size leaves it as it is. Only nodes are drawn here,
        # no text is made.
        wanted = sum(sizes.values())
        possible = math.perm(self.n, self.d * self.p) // math.factorial(self.d - 1)
        if wanted > possible:
            raise TaskError(
                f"task.options: train + validation + test = {wanted}, but only {possible} different star graphs "
                f"({self.d}, {self.p}, {self.n}) exist: lower the sizes or raise n"
            )
        draws: dict[str, int] = {}
        draw = 0
        while len(draws) < wanted:
            draws.setdefault(self._key(self._nodes(self._rng(draw))), draw)
            draw += 1
        items = [(number, key) for key, number in draws.items()]
        splits, start = {}, 0
        for split, size in sizes.items():
            splits[split] = LazyProblems(self, tuple(items[start : start + size]))
            start += size
        return {split: splits[split] for split in SPLITS}

    def _key(self, nodes: np.ndarray) -> str:
        """The graph's identity: the order of the decoy arms says nothing."""
        decoys = nodes[self.p :].reshape(self.d - 1, self.p)
        canonical = [nodes[: self.p], decoys[np.argsort(decoys[:, 0])]]
        return hashlib.sha256(b"/".join(part.astype("<i8").tobytes() for part in canonical)).hexdigest()[:12]


@dataclass(frozen=True)
class LazyProblems(Sequence[Problem]):
    """Problems that are made when they are looked at: 10,000 of the headline size are some 40 MB of text."""

    task: StarGraphTask
    draws: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        return len(self.draws)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyProblems": ...
    def __getitem__(self, index: int | slice) -> "Problem | LazyProblems":
        if isinstance(index, slice):
            return LazyProblems(self.task, self.draws[index])
        return self.task.problem(*self.draws[index])


def _check_shape(d: int, p: int, n: int) -> None:
    if d < 1 or p < 2:
        raise TaskError(f"task.options: d = {d}, p = {p}: a star graph needs d >= 1 arms and p >= 2 nodes on the path")
    if d * p > n:
        raise TaskError(
            f"task.options: d * p = {d} * {p} = {d * p} nodes are needed, but n = {n}: "
            f"raise n to at least {d * p}, or lower d or p"
        )


def _what_went_wrong(answer: str, gold: list[int], decoys: list[list[int]]) -> list[str]:
    """A rule, then the first place at which the path leaves the gold path."""
    try:
        path = [int(node) for node in answer.split(",")]
    except ValueError:
        return [LIST_RULE]
    if path[0] != gold[0]:
        return [SOURCE_RULE, f"The path starts at {path[0]}, the source is {gold[0]}."]
    for position, (node, right) in enumerate(zip(path, gold, strict=False), start=1):
        if node != right:
            return _wrong_node(node, position, path, gold, decoys)
    if len(path) > len(gold):
        return [GOAL_RULE, f"The path goes on after the goal {gold[-1]}."]
    if len(path) < len(gold):
        return [
            GOAL_RULE,
            f"The path stops at {path[-1]}, before the goal {gold[-1]}; the next node is {gold[len(path)]}.",
        ]
    return [LIST_RULE]


def _wrong_node(node: int, position: int, path: list[int], gold: list[int], decoys: list[list[int]]) -> list[str]:
    before, right = path[position - 2], gold[position - 1]
    where = f"The path goes wrong at node number {position}: {node} instead of {right}."
    arm = next((arm for arm in decoys if node in arm), None)
    if arm is not None and position == 2 and node == arm[0]:
        return ["Take the arm that leads to the goal, not a decoy.", where, f"{node} begins a decoy arm."]
    if arm is not None:
        return [EDGE_RULE, where, f"{node} lies on a decoy arm, and no edge joins {before} and {node}."]
    if node not in gold:
        return [EDGE_RULE, where, f"{node} is not a node of the graph."]
    return [EDGE_RULE, where, f"The path steps back or jumps from {before} to {node}."]
