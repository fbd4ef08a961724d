"""Star graphs: their shape, their splits, and what the verifier says about a wrong path."""

import itertools
from collections import Counter

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.star_graph import EDGE_RULE, GOAL_RULE, LIST_RULE, SOURCE_RULE, StarGraphTask
from fastslow.types import Problem

# 7 is the source, 1 the goal; the two decoy arms are 5-6-8 and 2-3-4.
PROBLEM = Problem("x", (), {"path": [7, 9, 1], "decoys": [[5, 6, 8], [2, 3, 4]]})


@pytest.fixture(scope="module")
def task() -> StarGraphTask:
    return StarGraphTask(d=4, p=3, n=15, train=60, validation=10, test=10)


def edges_of(problem: Problem) -> list[tuple[int, int]]:
    pairs = problem.messages[0]["content"].split("\n")[1].split(" ")
    return [tuple(map(int, pair.split(","))) for pair in pairs]


def test_a_problem_is_a_star_with_one_way_to_the_goal(task):
    for problem in task.problems("train"):
        edges = edges_of(problem)
        path, decoys = problem.data["path"], problem.data["decoys"]
        degree = Counter(node for edge in edges for node in edge)
        nodes = [*path, *(node for arm in decoys for node in arm)]
        assert len(nodes) == len(set(nodes)) == 4 * 3
        assert all(0 <= node < 15 for node in nodes)
        # 2 edges on the path, 3 on each of 3 arms; only the source has the full degree, only 4 ends have one neighbour.
        assert len(edges) == 2 + 3 * 3
        assert degree[path[0]] == 4
        assert sorted(degree.values()) == [1] * 4 + [2] * 7 + [4]
        undirected = {frozenset(edge) for edge in edges}
        assert all({a, b} in undirected for a, b in itertools.pairwise(path))
        assert all({path[0], arm[0]} in undirected for arm in decoys)
        assert problem.messages[0]["content"].endswith(f"Find the path from node {path[0]} to node {path[-1]}.")


def test_edges_are_shuffled_and_have_no_direction(task):
    outward = total = 0
    for problem in task.problems("train"):
        path = problem.data["path"]
        edges = edges_of(problem)
        outward += (path[0], path[1]) in edges
        total += 1
    assert 0.2 * total < outward < 0.8 * total


def test_the_headline_size_uses_every_node_and_writes_only_the_problems_that_are_looked_at(monkeypatch):
    drawn, written = [], []
    nodes, write = StarGraphTask._nodes, StarGraphTask.problem
    monkeypatch.setattr(StarGraphTask, "_nodes", lambda self, rng: drawn.append(1) or nodes(self, rng))
    monkeypatch.setattr(StarGraphTask, "problem", lambda self, *args: written.append(args) or write(self, *args))
    task = StarGraphTask()
    assert [len(task.problems(split)) for split in ("train", "validation", "test")] == [10000, 200, 200]
    # One draw a problem, and no text: 10,000 problems of this size are some 40 MB.
    assert (len(drawn), len(written)) == (10400, 0)
    problem = task.problems("train")[9999]
    assert len(written) == 1
    assert sorted({node for edge in edges_of(problem) for node in edge}) == list(range(500))
    assert len(edges_of(problem)) == 499


def test_a_slice_of_problems_is_problems(task):
    assert [problem.id for problem in task.problems("test")[2:4]] == [task.problems("test")[i].id for i in (2, 3)]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_splits_do_not_depend_on_the_training_size(task, split):
    larger = StarGraphTask(d=4, p=3, n=15, train=90, validation=10, test=10)
    assert [p.id for p in larger.problems(split)] == [p.id for p in task.problems(split)]


def test_another_seed_gives_other_problems(task):
    other = StarGraphTask(d=4, p=3, n=15, train=60, validation=10, test=10, seed=1)
    assert {p.id for p in other.problems("train")}.isdisjoint(p.id for p in task.problems("train"))


def test_every_graph_of_a_small_space_comes_once():
    # 2 nodes on the path, 1 decoy arm of 2, out of 4 nodes: 4! = 24 graphs, and no two splits share one.
    task = StarGraphTask(d=2, p=2, n=4, train=20, validation=2, test=2)
    graphs = [str(p.data) for split in ("train", "validation", "test") for p in task.problems(split)]
    assert len(set(graphs)) == 24
    with pytest.raises(TaskError, match=r"= 25, but only 24 different star graphs \(2, 2, 4\) exist"):
        StarGraphTask(d=2, p=2, n=4, train=21, validation=2, test=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"d": 25, "p": 20, "n": 499},
            r"d \* p = 25 \* 20 = 500 nodes are needed, but n = 499: raise n to at least 500",
        ),
        ({"d": 0, "p": 3, "n": 9}, "d = 0, p = 3"),
        ({"d": 2, "p": 1, "n": 9}, "d = 2, p = 1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(options, message):
    with pytest.raises(TaskError, match=message):
        StarGraphTask(**options)


@pytest.mark.parametrize("completion", ["\\boxed{7,9,1}", "<think>\\boxed{7}</think> It is \\boxed{ 7, 9 ,1 }."])
def test_the_gold_path_scores_1(task, completion):
    assert task.score(PROBLEM, completion).reward == 1.0


@pytest.mark.parametrize(
    ("completion", "lines"),
    [
        ("7,9,1", ["Put the final answer in \\boxed{}."]),
        ("<think>\\boxed{7,9,1}</think> done", ["Put the final answer in \\boxed{}."]),
        ("\\boxed{}", [LIST_RULE]),
        ("\\boxed{7->9->1}", [LIST_RULE]),
        ("\\boxed{7,9,01}", [LIST_RULE]),
        ("\\boxed{9,1}", [SOURCE_RULE, "The path starts at 9, the source is 7."]),
        (
            "\\boxed{7,5,6}",
            [
                "Take the arm that leads to the goal, not a decoy.",
                "The path goes wrong at node number 2: 5 instead of 9.",
                "5 begins a decoy arm.",
            ],
        ),
        (
            "\\boxed{7,9,4}",
            [
                EDGE_RULE,
                "The path goes wrong at node number 3: 4 instead of 1.",
                "4 lies on a decoy arm, and no edge joins 9 and 4.",
            ],
        ),
        (
            "\\boxed{7,99,1}",
            [EDGE_RULE, "The path goes wrong at node number 2: 99 instead of 9.", "99 is not a node of the graph."],
        ),
        (
            "\\boxed{7,1}",
            [
                EDGE_RULE,
                "The path goes wrong at node number 2: 1 instead of 9.",
                "The path steps back or jumps from 7 to 1.",
            ],
        ),
        ("\\boxed{7,9}", [GOAL_RULE, "The path stops at 9, before the goal 1; the next node is 1."]),
        ("\\boxed{7,9,1,5}", [GOAL_RULE, "The path goes on after the goal 1."]),
    ],
)
def test_the_feedback_says_where_the_path_went_wrong(task, completion, lines):
    score = task.score(PROBLEM, completion)
    assert score.reward == 0.0
    assert score.feedback.splitlines() == lines
