"""Each check of `fastslow.testing` fails on an object that breaks its rule: a check that cannot fail says nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fastslow.errors import InfrastructureError, ReflectionError
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.optimiser import Candidate, Evolution, Usage
from fastslow.fast.proposers.base import Example, Proposal
from fastslow.tasks.base import ScoringFailure, Stage
from fastslow.tasks.scorers import EXACT, Scorer
from fastslow.testing import observers, optimisers, proposers, scorers, tasks
from fastslow.training.observer import SilentObserver
from fastslow.types import Problem, Prompt, Score

from toy import LettersTask


def breaks(suite: Callable[[], None], check: str) -> None:
    """The suite fails, and names this check."""
    with pytest.raises(AssertionError, match=rf"(?m)^- {check}: .+"):
        suite()


# -- prompt optimisers -------------------------------------------------------------------------------------------------


class Sound:
    """Adds a plus sign to the best, once; scores everything on as many anchors as the budget has room for."""

    def __init__(self, proposer: Any, metric_calls: int) -> None:
        self.proposer, self.metric_calls = proposer, metric_calls

    def evolve(
        self, population: Any, problems: Any, evaluate: Any, *, size: int, seed: int, previous_scores: Any
    ) -> Evolution:
        prompts = list(dict.fromkeys(population))
        kept = tuple(prompts[i % len(prompts)] for i in range(size))
        usage, children = Usage(), []
        for component in prompts[0].as_dict():
            try:
                proposal = self.proposer.propose(prompts[0], component, [Example("q", "a", 0.0, "f")], seed=seed)
            except ReflectionError as error:
                return Evolution(kept, (), 0, error.usage, error=str(error))  # type: ignore[arg-type]
            usage += proposal.usage
            children.append(prompts[0].replace(component, proposal.text))
        pool = list(dict.fromkeys([*prompts, *children]))
        anchors = problems[: self.metric_calls // len(pool)]
        if not anchors:
            return Evolution(kept, (), 0, usage, error="too few metric calls")
        rewards: dict[Prompt, list[float]] = {prompt: [] for prompt in pool}
        evaluations = evaluate([(prompt, problem) for prompt in pool for problem in anchors])
        for evaluation in evaluations:
            if evaluation.reward is not None:
                rewards[evaluation.prompt].append(evaluation.reward)
        if not any(rewards.values()):
            raise InfrastructureError("nothing could be scored")
        ranked = sorted(
            (p for p in pool if rewards[p]), key=lambda prompt: -sum(rewards[prompt]) / len(rewards[prompt])
        )
        found = (*ranked[:size], *(ranked[0],) * (size - len(ranked)))
        candidates = tuple(
            Candidate(
                p, None, True, "scored", {e.problem.id: e.reward for e in evaluations if e.prompt == p and e.reward}
            )
            for p in pool
        )
        return Evolution(found, candidates, len(evaluations), usage)


class Twisted(Sound):
    """`twist` changes what a sound optimiser returns."""

    twist: Callable[[Any, Evolution], Evolution] = staticmethod(lambda self, evolution: evolution)
    reads: Callable[[Any], Any] = staticmethod(lambda evaluate: evaluate)

    def evolve(self, population: Any, problems: Any, evaluate: Any, **more: Any) -> Evolution:
        return type(self).twist(self, super().evolve(population, problems, type(self).reads(evaluate), **more))


def twisted(twist: Callable[[Any, Evolution], Evolution]) -> type[Twisted]:
    return type("Broken", (Twisted,), {"twist": staticmethod(twist)})


class Lavish(Sound):
    def __init__(self, proposer: Any) -> None:
        super().__init__(proposer, 10_000)


class Zeroing(Twisted):
    """Takes a masked rollout for a 0."""

    @staticmethod
    def reads(evaluate: Any) -> Any:
        def read(pairs: Any) -> Any:
            return [
                type("Zeroed", (), {"prompt": e.prompt, "problem": e.problem, "reward": e.reward or 0.0})
                for e in evaluate(pairs)
            ]

        return read


class Remembering(Twisted):
    seen = 0

    @staticmethod
    def twist(self: Any, evolution: Evolution) -> Evolution:
        self.seen += 1
        return replace(evolution, info={"cycle": self.seen})


class Clock(Twisted):
    cycles = 0

    @staticmethod
    def twist(self: Any, evolution: Evolution) -> Evolution:
        Clock.cycles += 1
        return replace(evolution, info={"time": Clock.cycles})


class Swallowing(FrozenOptimiser):
    """Takes every error for a search without progress."""

    def __init__(self, proposer: Any, metric_calls: int) -> None:
        self.inner = Sound(proposer, metric_calls)

    def evolve(self, population: Any, problems: Any, evaluate: Any, **more: Any) -> Evolution:
        try:
            evolution = self.inner.evolve(population, problems, evaluate, **more)
        except Exception:
            return super().evolve(population, problems, evaluate, **more)
        return replace(evolution, error=None, population=evolution.population[::-1]) if evolution.error else evolution


class Adding(Sound):
    def evolve(self, population: Any, problems: Any, evaluate: Any, **more: Any) -> Evolution:
        found = super().evolve(population, problems, evaluate, **more)
        problems.pop()
        return found


class Straying(Sound):
    def evolve(self, population: Any, problems: Any, evaluate: Any, **more: Any) -> Evolution:
        return super().evolve(population, [Problem("mine", ()), *problems], evaluate, **more)


class PerRollout(Twisted):
    """Counts rollouts in place of pairs."""

    count = 0

    @staticmethod
    def twist(self: Any, evolution: Evolution) -> Evolution:
        return replace(evolution, metric_calls=self.count)

    def evolve(self, population: Any, problems: Any, evaluate: Any, **more: Any) -> Evolution:
        def counted(pairs: Any) -> Any:
            found = evaluate(pairs)
            self.count += sum(len(evaluation.rollouts) for evaluation in found)
            return found

        self.count = 0
        return super().evolve(population, problems, counted, **more)


OPTIMISERS: dict[str, Any] = {
    "returns_exactly_k_prompts": twisted(lambda self, e: replace(e, population=e.population[:1])),
    "puts_the_best_first": twisted(lambda self, e: replace(e, population=e.population[::-1])),
    "pads_with_the_best": twisted(
        lambda self, e: (
            replace(e, population=(e.population[0], *(e.population[1],) * (len(e.population) - 1)))
            if len(e.population) == 7
            else e
        )
    ),
    "is_moved_by_its_seed_alone": Clock,
    "remembers_nothing": Remembering,
    "keeps_within_its_metric_calls": Lavish,
    "counts_a_pair_once_however_many_rollouts_it_has": PerRollout,
    "asks_for_the_anchors_alone": Straying,
    "keeps_the_population_when_reflection_is_down": Swallowing,
    "counts_what_reflection_costs": twisted(lambda self, e: replace(e, usage=Usage())),
    "lets_a_defect_of_its_proposer_out": Swallowing,
    "refuses_to_go_on_when_nothing_can_be_scored": Swallowing,
    "lets_an_error_of_the_policy_out": Swallowing,
    "leaves_masked_rollouts_out_of_every_mean": Zeroing,
    "leaves_its_arguments_alone": Adding,
    "keeps_the_components_of_its_prompts": twisted(
        lambda self, e: replace(e, population=tuple(Prompt.of(p.system) for p in e.population))
    ),
    "records_its_candidates": twisted(lambda self, e: replace(e, candidates=())),
    "names_members_by_kind": twisted(lambda self, e: replace(e, by_kind={"a": Prompt.of("nobody")})),
}


def test_a_sound_optimiser_passes() -> None:
    optimisers.check_optimiser(Sound)


@pytest.mark.parametrize("check", [check.__name__ for check in optimisers.CHECKS])
def test_a_broken_optimiser_fails(check: str) -> None:
    breaks(lambda: optimisers.check_optimiser(OPTIMISERS[check]), check)


# -- proposers ---------------------------------------------------------------------------------------------------------


class Writer:
    """A sound proposer."""

    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        return Proposal(f"{parent.as_dict()[component]}\n{examples[0].feedback} {seed}", Usage(calls=1))


class Batching(Writer):
    def propose_batch(self, requests: Any) -> Any:
        return [self.propose(r.parent, r.component, r.examples, seed=r.seed) for r in requests][::-1]


class Echo(Writer):
    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        return Proposal(parent.as_dict()[component], Usage(calls=1))


class Freely(Writer):
    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        raise ReflectionError("no", Usage(calls=1))


class Moody(Writer):
    count = 0

    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        self.count += 1
        return Proposal(f"version {self.count}", Usage(calls=1))


class Taking(Writer):
    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        found = super().propose(parent, component, examples, seed=seed)
        if isinstance(examples, list):
            examples.clear()
        return found


class Whole(Writer):
    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        return Proposal("\n".join([*parent.as_dict().values(), str(seed)]), Usage(calls=1))


class Formatting(Writer):
    def propose(self, parent: Prompt, component: str, examples: Any, *, seed: int) -> Proposal:
        return Proposal(("{} " + examples[0].question).format(seed), Usage(calls=1))


PROPOSERS: dict[str, Any] = {
    "writes_a_new_text": Echo,
    "an_error_says_whether_the_call_failed_or_was_refused": Freely,
    "asks_the_same_question_for_the_same_seed": Moody,
    "leaves_its_arguments_alone": Taking,
    "writes_the_component_that_it_is_asked_for": Whole,
    "takes_any_rollout": Formatting,
    "takes_a_batch_in_order": Batching,
}


def test_a_sound_proposer_passes() -> None:
    proposers.check_proposer(Writer())


@pytest.mark.parametrize("check", [check.__name__ for check in proposers.CHECKS])
def test_a_broken_proposer_fails(check: str) -> None:
    breaks(lambda: proposers.check_proposer(PROPOSERS[check]()), check)


# -- scorers -----------------------------------------------------------------------------------------------------------

COUNT = [0]


def moody(completion: str, answer: Any) -> float:
    COUNT[0] += 1
    return 1.0 if completion == answer else 0.5 / COUNT[0]


def eating(completion: str, record: Any) -> float:
    return float(completion == record.pop("answer", None))


SCORERS: dict[str, Any] = {
    "can_be_called": lambda completion: 1.0,
    "scores_the_right_answer_with_1": lambda completion, answer: 0.9 * (completion == answer),
    "takes_any_completion": lambda completion, answer: float(int(completion) == int(answer)),
    "tells_right_from_wrong": lambda completion, answer: 1.0,
    "says_the_same_twice": moody,
    "leaves_the_record_alone": eating,
    "refuses_answers_of_no_use": Scorer(lambda answer: answer, EXACT.judge),
}


def check_scorer(scorer: Any) -> None:
    scorers.check_scorer(scorer, [{"answer": "4"}, {"answer": "5"}], right=lambda record: str(record.get("answer")))


def test_a_sound_scorer_passes() -> None:
    check_scorer(lambda completion, answer: completion == answer)
    check_scorer(EXACT)


@pytest.mark.parametrize("check", [check.__name__ for check in scorers.CHECKS])
def test_a_broken_scorer_fails(check: str) -> None:
    breaks(lambda: check_scorer(SCORERS[check]), check)


# -- observers ---------------------------------------------------------------------------------------------------------


def hearing(on: Callable[[Any, str, dict[str, Any]], None]) -> type[SilentObserver]:
    return type("Hearing", (SilentObserver,), {"on_event": on, "open": False, "step": -1})


def fails_where(condition: Callable[[Any, str, dict[str, Any]], bool]) -> type[SilentObserver]:
    def on(self: Any, kind: str, payload: dict[str, Any]) -> None:
        if condition(self, kind, payload):
            raise RuntimeError("broken")
        self.open = self.open or kind == "start"
        self.step = payload.get("step", self.step) if kind in ("start", "step") else self.step

    return hearing(on)


class Global(SilentObserver):
    taken = False

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "start":
            if Global.taken:
                raise RuntimeError("one run a process")
            Global.taken = True


OBSERVERS: dict[str, Any] = {
    "takes_events_by_position": object,
    "hears_a_whole_run": fails_where(lambda self, kind, payload: kind == "step" and payload["slow/loss"] is None),
    "hears_a_resumed_run": fails_where(lambda self, kind, payload: kind == "start" and payload["step"] != 0),
    "hears_a_run_that_counts_rollouts": fails_where(
        lambda self, kind, payload: kind == "start" and payload["max_rollouts"] is not None
    ),
    "hears_a_run_that_an_error_ends": fails_where(lambda self, kind, payload: kind == "abort" and self.step >= 0),
    "hears_a_run_that_an_error_ends_at_its_start": fails_where(
        lambda self, kind, payload: kind == "abort" and self.open
    ),
    "hears_an_end_without_a_start": fails_where(lambda self, kind, payload: kind == "abort" and not self.open),
    "ignores_events_that_it_does_not_know": fails_where(lambda self, kind, payload: kind.startswith("an-event")),
    "leaves_payloads_alone": hearing(lambda self, kind, payload: payload.clear()),
    "can_be_used_twice_over": Global,
}


@pytest.mark.parametrize("check", [check.__name__ for check in observers.CHECKS])
def test_a_broken_observer_fails(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Global, "taken", False)
    breaks(lambda: observers.check_observer(OBSERVERS[check]), check)


# -- tasks -------------------------------------------------------------------------------------------------------------


def broken_task(**members: Any) -> LettersTask:
    made: LettersTask = type("BrokenTask", (LettersTask,), members)()
    return made


def scored(judge: Callable[[Any, Problem, str], Any]) -> LettersTask:
    return broken_task(score=judge)


def shuffled(self: Any, split: Any) -> list[Problem]:
    self.turn = getattr(self, "turn", 0) + 1
    made = list(LettersTask.problems(self, split))
    return made[self.turn % 2 :] + made[: self.turn % 2]


def counted(self: Any, problem: Problem, text: str) -> Score:
    self.calls += 1
    return Score(1.0 / self.calls, "moody")


def reversed_batch(self: Any, problems: Any, texts: Any) -> Any:
    return LettersTask.score_batch(self, problems, texts)[::-1]


def storing(self: Any, problem: Problem, text: str) -> Score:
    problem.data["said"] = text  # type: ignore[index]  # on purpose
    return LettersTask.score(self, problem, text)


def same_questions(self: Any, split: Any) -> list[Problem]:
    same = ({"role": "user", "content": "n"},)
    return [replace(problem, messages=same) for problem in LettersTask.problems(self, split)]


def ended_by_the_assistant(self: Any, split: Any) -> list[Problem]:
    said = {"role": "assistant", "content": "a"}
    return [replace(problem, messages=(*problem.messages, said)) for problem in LettersTask.problems(self, split)]


def breaking_on_the_wrong(self: Any, problems: Any, texts: Any) -> Any:
    scores = LettersTask.score_batch(self, problems, texts)
    return [score if score.reward == 1.0 else ScoringFailure("wrong") for score in scores]  # type: ignore[union-attr]


TASKS: dict[str, Any] = {
    "is_a_task_with_a_name": broken_task(name=""),
    "splits_share_no_problem": broken_task(problems=same_questions),
    "problems_are_questions": broken_task(problems=ended_by_the_assistant),
    "gives_the_same_problems_again": broken_task(problems=shuffled),
    "scores_any_completion": scored(lambda self, problem, text: Score(1.0 / len(text.strip()), "x")),
    "names_what_is_wrong": scored(lambda self, problem, text: Score(0.0)),
    "scores_the_right_answer_with_1": scored(lambda self, problem, text: Score(0.5, "half")),
    "scores_a_batch_in_order": broken_task(score_batch=reversed_batch),
    "says_the_same_twice": scored(counted),
    "leaves_problems_alone": scored(storing),
    "shows_the_prompt": broken_task(messages=lambda self, problem, prompt: problem.messages),
    "has_one_seed_prompt": broken_task(seed_prompt="a text"),
    "takes_another_seed_prompt": broken_task(with_seed_prompt=lambda self, prompt: self),
    "has_parts_and_stages": broken_task(stage=lambda self, step: Stage(self, step + 1)),
    "answers_of_others_are_judged_too": broken_task(score_batch=breaking_on_the_wrong),
}


def check_task(task: Any) -> None:
    tasks.check_task(task, right=lambda problem: problem.data["letters"])


def test_a_sound_task_passes() -> None:
    check_task(LettersTask())


@pytest.mark.parametrize("check", [check.__name__ for check in tasks.CHECKS])
def test_a_broken_task_fails(check: str) -> None:
    breaks(lambda: check_task(TASKS[check]), check)
