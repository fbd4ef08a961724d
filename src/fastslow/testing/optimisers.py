"""The contract of a prompt optimiser, for its author to run. It plays in a world without a model.

from fastslow.testing.optimisers import check_optimiser

def test_my_optimiser():
    check_optimiser(MyOptimiser)
"""

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastslow.errors import InfrastructureError, ReflectionError
from fastslow.fast.optimiser import Candidate, Evaluation, Evolution, PromptOptimiser, Usage
from fastslow.testing.contract import require, run_checks
from fastslow.testing.worlds import Plus, World, problems_of
from fastslow.types import SYSTEM, Problem, Prompt

Make = Callable[..., PromptOptimiser]

SEED = Prompt.of("seed")
GOOD, FAIR, POOR = Prompt.of("seed+++"), Prompt.of("seed++"), SEED
"""Best first: each plus sign is worth a tenth."""
BUDGET = 60


def check_optimiser(make: Make) -> None:
    """Run every check. Raises AssertionError.

    `make` is the class, or a function that gives a new optimiser; it gets `seed_prompt`, `metric_calls`, `room` (None)
    and `proposer` where it has parameters of these names, as it does from a config.
    """
    run_checks("the prompt optimiser", CHECKS, make)


def new(
    make: Make, *, metric_calls: int = BUDGET, proposer: Plus | None = None, seed: Prompt = SEED
) -> PromptOptimiser:
    """A new optimiser with this budget and this proposer."""
    given = {"seed_prompt": seed, "metric_calls": metric_calls, "room": None, "proposer": proposer or Plus()}
    wanted = inspect.signature(make).parameters
    return make(**{name: value for name, value in given.items() if name in wanted})


def evolve(
    optimiser: PromptOptimiser,
    world: World,
    population: Sequence[Prompt] = (SEED,),
    *,
    problems: Sequence[Problem] | None = None,
    size: int = 2,
    seed: int = 0,
    previous: Mapping[str, float] | None = None,
) -> Evolution:
    """One cycle in this world, on six problems with one kind if no others are given."""
    anchors = problems_of(6) if problems is None else problems
    return optimiser.evolve(population, anchors, world.evaluate, size=size, seed=seed, previous_scores=previous or {})


def returns_exactly_k_prompts(make: Make) -> None:
    """The group of a problem takes one prompt a place, so a shorter or a longer population fits no step."""
    for population in ([SEED], [GOOD, FAIR, POOR]):
        for size in (1, 2, 5):
            found = evolve(new(make), World(), population, size=size).population
            right = isinstance(found, tuple) and len(found) == size and all(isinstance(p, Prompt) for p in found)
            require(right, f"from {len(population)} prompts with size={size}: a tuple of {size} Prompts, not {found!r}")


def puts_the_best_first(make: Make) -> None:
    """One that scores nothing keeps the order that it is given."""
    world = World()
    evolution = evolve(new(make), world, [POOR, GOOD, FAIR], size=3)
    if world.calls:
        rewards = [world.reward(prompt, problems_of(1)[0]) or 0.0 for prompt in evolution.population]
        require(rewards[0] == max(rewards), f"best first: the population's mean rewards are {rewards}")
        whole = [p for p in {prompt for prompt, _ in world.pairs} if len({q.id for o, q in world.pairs if o == p}) == 6]
        best = max((world.reward(prompt, problems_of(1)[0]) or 0.0 for prompt in whole), default=0.0)
        require(rewards[0] >= best, f"best first: the first has {rewards[0]}; one has {best} on every anchor")


def pads_with_the_best(make: Make) -> None:
    """Where there are fewer prompts than places, copies fill the rest, and the first prompt has most of them."""
    population = evolve(new(make), World(lambda prompt, problem: 0.5), [GOOD, FAIR], size=7).population
    copies = Counter(population)
    require(
        copies[population[0]] == max(copies.values()), f"of {len(copies)} prompts in 7 places, the first fills most"
    )


def is_moved_by_its_seed_alone(make: Make) -> None:
    """Global random state and the order of a set must not move a search: a run could not be repeated."""
    first, second = (evolve(new(make), World(), [GOOD, POOR], seed=5) for _ in range(2))
    require(first == second, "two new optimisers with the same arguments and seed must give the same Evolution")


def remembers_nothing(make: Make) -> None:
    """A run that is resumed goes on with a new optimiser, and must give what the uninterrupted one gives."""
    used = new(make)
    evolve(used, World(), [FAIR], seed=3)
    again, fresh = evolve(used, World(), [GOOD, POOR], seed=5), evolve(new(make), World(), [GOOD, POOR], seed=5)
    require(again == fresh, "an optimiser that has seen a cycle must give what a new one gives: keep nothing in it")


def keeps_within_its_metric_calls(make: Make) -> None:
    """The budget may be below one pass over the anchors, and is a ceiling there as well."""
    for budget in (1, 3, 7, 20, BUDGET):
        world = World()
        evolution = evolve(new(make, metric_calls=budget), world, [GOOD, FAIR, POOR], size=3)
        require(world.calls <= budget, f"metric_calls={budget} is a hard ceiling: {world.calls} pairs were asked for")
        said = evolution.metric_calls
        require(
            said == world.calls, f"Evolution.metric_calls is the number of pairs asked for: {said}, not {world.calls}"
        )
        require(len(evolution.population) == 3, f"with metric_calls={budget}, too, it returns a whole population")


def counts_a_pair_once_however_many_rollouts_it_has(make: Make) -> None:
    """Reused rollouts give a pair several rewards; the budget counts what was asked."""
    world = World(copies=3)
    evolution = evolve(new(make), world, [GOOD, POOR])
    require(
        evolution.metric_calls == world.calls, "a pair is one metric call, also where reuse gives it three rollouts"
    )


def asks_for_the_anchors_alone(make: Make) -> None:
    """Other problems may belong to validation or to a later step. One anchor alone is enough to search."""
    anchors, world = problems_of(4), World()
    evolve(new(make), world, [GOOD, POOR], problems=anchors)
    require(
        all(problem in anchors for _, problem in world.pairs), "problems that are not in the anchor set were asked for"
    )
    evolution = evolve(new(make), World(), [GOOD, POOR], problems=problems_of(1))
    require(len(evolution.population) == 2, "an anchor set of one problem is enough")


def keeps_the_population_when_reflection_is_down(make: Make) -> None:
    """A proposer that is out of reach costs a cycle, never a prompt, and the cycle says why."""
    down = Plus(ReflectionError("connection refused", Usage(calls=1, failures=1)))
    evolution = evolve(new(make, proposer=down), World(), [GOOD, FAIR, POOR], size=3)
    if down.asked:
        require(
            evolution.population == (GOOD, FAIR, POOR),
            f"when no call of the proposer works, the previous population is returned, not {evolution.population}",
        )
        require(bool(evolution.error), "when no call of the proposer works, `error` says so")
        require(evolution.usage.failures > 0, "failed calls are counted in `usage`")


def counts_what_reflection_costs(make: Make) -> None:
    """Metrics and the bill go by `usage`, so calls whose proposals are thrown away are in it."""
    proposer = Plus()
    evolution = evolve(new(make, proposer=proposer), World(), [GOOD, POOR])
    require(isinstance(evolution.usage, Usage), f"`usage` is a Usage, not {evolution.usage!r}")
    calls = evolution.usage.calls
    require(calls >= proposer.asked, f"`usage` sums what every proposal cost: {proposer.asked} calls, not {calls}")


def lets_a_defect_of_its_proposer_out(make: Make) -> None:
    """A ReflectionError may be expected; any other error is a defect, and ends the run with its name."""
    broken = Plus(KeyError("a defect"))
    try:
        evolve(new(make, proposer=broken), World(), [GOOD, POOR])
    except KeyError:
        return
    require(not broken.asked, "a defect of the proposer must not look like a search without progress: let it out")


def refuses_to_go_on_when_nothing_can_be_scored(make: Make) -> None:
    """Where every rollout is masked, no prompt is better than another: the scorer is broken."""
    world = World(lambda prompt, problem: None)
    try:
        evolve(new(make), world, [GOOD, POOR])
    except InfrastructureError:
        return
    require(not world.calls, "when no rollout at all could be scored, it raises InfrastructureError")


def lets_an_error_of_the_policy_out(make: Make) -> None:
    """An engine that is gone ends the run, which is resumed later; the search must not go on without it."""

    class Gone(World):
        def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
            super().evaluate(pairs)
            raise InfrastructureError("the server is gone")

    world = Gone()
    try:
        evolve(new(make), world, [GOOD, POOR])
    except InfrastructureError:
        return
    require(not world.calls, "an InfrastructureError of `evaluate` ends the search: it is let out")


def leaves_masked_rollouts_out_of_every_mean(make: Make) -> None:
    """A rollout whose scorer broke has no reward: it is no 0."""
    masked, sound = Prompt.of("masked half of the time"), Prompt.of("sound")

    def reward(prompt: Prompt, problem: Problem) -> float | None:
        if prompt == masked:
            return None if int(problem.id[1:]) % 2 else 0.75
        return 0.5 if prompt == sound else 0.0

    world = World(reward)
    evolution = evolve(new(make), world, [sound, masked])
    if any(prompt == masked for prompt, _ in world.pairs):
        first = evolution.population[0]
        require(first == masked, "a mean of 0.75 over the half that could be scored is better than one of 0.5")
    scored = [candidate for candidate in evolution.candidates if candidate.prompt == masked]
    require(
        all(score > 0.5 for candidate in scored for score in candidate.scores.values()),
        "a masked rollout has no score, or the mean of the others, in `candidates`; it is never a 0",
    )


def leaves_its_arguments_alone(make: Make) -> None:
    """The run still uses its lists and scores after the cycle, and writes them into its state."""
    population, problems, previous = [GOOD, POOR], problems_of(6), {GOOD.hash: 0.4, "0" * 12: 1.0}
    before = copy.deepcopy((population, problems, previous))
    evolve(new(make), World(), population, problems=problems, previous=previous)
    require((population, problems, previous) == before, "`evolve` must not change its arguments")


def keeps_the_components_of_its_prompts(make: Make) -> None:
    """A task fills in every component by name: a lost one breaks it, and it ignores a new one."""
    wide = Prompt.from_dict({SYSTEM: "seed", "skill": "count"})
    world = World()
    evolution = evolve(new(make, seed=wide), world, [wide])
    seen = {*evolution.population, *(prompt for prompt, _ in world.pairs)}
    names = {tuple(sorted(prompt.as_dict())) for prompt in seen}
    require(names == {("skill", SYSTEM)}, f"every prompt has the components of its parent; these have {sorted(names)}")


def records_its_candidates(make: Make) -> None:
    """`prompts.jsonl` and the family tree are made from `candidates`: each new member stands there with its scores."""
    anchors = problems_of(6)
    evolution = evolve(new(make), World(), [GOOD, POOR], problems=anchors)
    ids = {problem.id for problem in anchors}
    for candidate in evolution.candidates:
        require(isinstance(candidate, Candidate), f"`candidates` holds {candidate!r}: a Candidate is needed")
        require(
            set(candidate.scores) <= ids, f"a candidate's scores go by the anchors' ids: {sorted(candidate.scores)}"
        )
        inside = all(0.0 <= score <= 1.0 for score in candidate.scores.values())
        require(inside, f"a candidate's scores lie in [0, 1]: {candidate.scores}")
    known = {candidate.prompt for candidate in evolution.candidates} | {GOOD, POOR}
    new_ones = [prompt.system for prompt in evolution.population if prompt not in known]
    require(not new_ones, f"every new prompt of the population is in `candidates`; {new_ones} are not")


def names_members_by_kind(make: Make) -> None:
    """`by_kind` may be empty; what stands in it is kinds of the anchors, each with a member."""
    anchors: list[Any] = problems_of(6, kinds=("a", "b"))
    evolution = evolve(new(make), World(), [GOOD, POOR], problems=anchors)
    members = set(evolution.by_kind.values()) <= set(evolution.population)
    require(
        members and set(evolution.by_kind) <= {"a", "b"}, "`by_kind` maps kinds of the anchors to population members"
    )


CHECKS = (
    returns_exactly_k_prompts,
    puts_the_best_first,
    pads_with_the_best,
    is_moved_by_its_seed_alone,
    remembers_nothing,
    keeps_within_its_metric_calls,
    counts_a_pair_once_however_many_rollouts_it_has,
    asks_for_the_anchors_alone,
    keeps_the_population_when_reflection_is_down,
    counts_what_reflection_costs,
    lets_a_defect_of_its_proposer_out,
    refuses_to_go_on_when_nothing_can_be_scored,
    lets_an_error_of_the_policy_out,
    leaves_masked_rollouts_out_of_every_mean,
    leaves_its_arguments_alone,
    keeps_the_components_of_its_prompts,
    records_its_candidates,
    names_members_by_kind,
)
