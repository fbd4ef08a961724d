"""From problems and prompts to rollouts: render, sample in waves, score in one batch.

A task of one turn is one wave: one `engine.sample` call, one `task.score_batch` call. Episodes of several turns are
played beside it (`waves.py`, and `agents.py` where an agent calls): each further wave samples the next turn of every
live episode in one call.

Two things are never mixed. A wrong, empty or cut-off completion is the model's doing and scores what the task says, 0
where it was cut off, whichever limit it was. A scorer or an environment that breaks is not the model's doing: the
rollout is masked and counted. So is one whose context is too long from the start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fastslow.errors import in_words, let_stop
from fastslow.rollouts.agents import AgentWaves
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.rollouts.waves import Live, Waves
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams
from fastslow.slow.limits import excess, fits
from fastslow.tasks.agents.task import AgentEpisode
from fastslow.tasks.base import ScoringFailure, Task
from fastslow.tasks.episode import OneTurn
from fastslow.types import Completion, EndReason, Problem, Prompt, Rollout, RolloutSource, Score, Trace, Turn

DEFAULTS = EpisodesConfig()


@dataclass(frozen=True)
class RolloutRequest:
    """`n` rollouts of one problem under one prompt."""

    problem: Problem
    prompt: Prompt
    n: int
    seed: int


@dataclass(frozen=True)
class Played:
    """One episode as it was played. `score` is None where it was not asked for, or is still to be asked of the task."""

    turns: tuple[Turn, ...]
    failure: str | None = None
    trace: Trace | None = None
    score: Score | None = None


def make_rollouts(
    engine: PolicyEngine,
    task: Task,
    requests: Sequence[RolloutRequest],
    params: SamplingParams,
    source: RolloutSource,
    *,
    context_limit: int | None = None,
    episodes: EpisodesConfig = DEFAULTS,
) -> list[list[Rollout]]:
    """The rollouts of each request, in order.

    With `context_limit` rollouts whose first context is too long for the model are masked; without, the engine raises
    TooLongError.
    """
    if not requests:
        return []
    version = engine.policy_version
    groups = play(engine, task, requests, params, context_limit=context_limit, episodes=episodes)
    flat = [(request, played) for request, group in zip(requests, groups, strict=True) for played in group]
    open_ones = [(r, played) for r, played in flat if played.failure is None and played.score is None]
    problems, texts = [request.problem for request, _ in open_ones], [played.turns[-1].text for _, played in open_ones]
    scores = iter(task.verdicts(problems, texts) if open_ones else [])
    made = iter(_rollout(request, played, scores, version, source) for request, played in flat)
    return [[next(made) for _ in group] for group in groups]


def play(
    engine: PolicyEngine,
    task: Task,
    requests: Sequence[RolloutRequest],
    params: SamplingParams,
    *,
    context_limit: int | None = None,
    episodes: EpisodesConfig = DEFAULTS,
    scored: bool = True,
) -> list[list[Played]]:
    """Play the episodes of each request, in order; `scored`: those of several turns are scored by their environments.

    Completions of one turn are not: `Played.score` is None there.
    """
    single = _SingleTurns(engine, params, context_limit)
    lives: list[Live] = []
    for index, request in enumerate(requests):
        one = _open(task, request, 0)
        if isinstance(one.episode, OneTurn):
            single.add(index, request, one.episode)
        else:
            lives += [one, *(_open(task, request, number) for number in range(1, request.n))][: request.n]
    limit = context_limit if context_limit is not None else getattr(engine, "context_limit", None)
    answering = [live for live in lives if not isinstance(live.episode, AgentEpisode)]
    calling = [live for live in lives if isinstance(live.episode, AgentEpisode)]
    with (
        Waves(engine, answering, params, episodes, mask_beyond=context_limit, limit=limit) as waves,
        AgentWaves(engine, calling, params, episodes, limit=limit) as agents,
    ):
        waves.start()
        first, later, called = single.requests, waves.requests(), agents.requests()
        while first or later or called:
            sampled = engine.sample([*first, *later, *called], params)
            single.answered(sampled[: len(first)])
            turns = [completion for (completion,) in sampled[len(first) :]]
            waves.answered(turns[: len(later)])
            agents.answered(turns[len(later) :])
            first, later, called = [], waves.requests(), agents.requests()
        if scored:
            waves.score()
    several = iter(lives)
    return [
        single.played(index) if index in single.contexts else [_played(next(several)) for _ in range(request.n)]
        for index, request in enumerate(requests)
    ]


def cut_off_score(score: Score, tokens: int, end: EndReason = "turn_tokens", turns: int = 1) -> Score:
    """The score of what was cut off: 0, with a rule of its own in front of the verifier's words; it names the limit."""
    rules: dict[EndReason, str] = {
        "turn_tokens": f"The answer was cut off after {tokens} tokens: keep it shorter.",
        "max_turns": f"The episode was cut off after {turns} turns: finish in fewer.",
        "max_tokens": "The episode was cut off because all its answers together became too long: keep them shorter.",
        "context": "The episode was cut off because it no longer fits into the model's context: keep it shorter.",
    }
    return Score(0.0, "\n".join(line for line in (rules[end], score.feedback) if line))


class _SingleTurns:
    """The requests of tasks of one turn: one context and n completions each, as the engine shares them best."""

    def __init__(self, engine: PolicyEngine, params: SamplingParams, context_limit: int | None) -> None:
        self.engine, self.params, self.context_limit = engine, params, context_limit
        self.contexts: dict[int, tuple[RolloutRequest, tuple[int, ...]]] = {}
        self.completions: dict[int, list[Completion]] = {}

    def add(self, index: int, request: RolloutRequest, episode: OneTurn) -> None:
        """Render the request that stands at `index`."""
        self.contexts[index] = (request, self.engine.encode(episode.start()))

    @property
    def requests(self) -> list[SampleRequest]:
        """What is to be sampled; contexts that are too long are not."""
        return [SampleRequest(context, r.n, r.seed) for r, context in self.contexts.values() if self._fits(context)]

    def answered(self, completions: Sequence[list[Completion]]) -> None:
        """Take the completions of `requests`; a later wave has none."""
        if completions:
            asked = [index for index, (_, context) in self.contexts.items() if self._fits(context)]
            self.completions = dict(zip(asked, completions, strict=True))

    def played(self, index: int) -> list[Played]:
        """What became of the request that stands at `index`."""
        request, context = self.contexts[index]
        if index not in self.completions:
            over = excess(self.context_limit, len(context), self.params.max_tokens)
            return [Played((), f"the context is too long: {over}")] * request.n
        return [
            Played((Turn(context, completion, self.engine.decode(completion.tokens)),))
            for completion in self.completions[index]
        ]

    def _fits(self, context: tuple[int, ...]) -> bool:
        return fits(self.context_limit, len(context), self.params.max_tokens)


def _open(task: Task, request: RolloutRequest, number: int) -> Live:
    """The request's episode of that number; a task that cannot make it has failed it."""
    seed = derive_seed(request.seed, "episode", number)
    try:
        return Live(request.problem, task.episode(request.problem, request.prompt), seed)
    except BaseException as error:  # an environment's own code
        let_stop(error)
        live = Live(request.problem, None, seed)
        live.fail(f"the environment could not be made: {type(error).__name__}: {in_words(error)}")
        return live


def _played(live: Live) -> Played:
    return Played(tuple(live.turns), live.failure, live.trace, live.score)


def _rollout(
    request: RolloutRequest,
    played: Played,
    scores: Iterator[Score | ScoringFailure],
    policy_version: int,
    source: RolloutSource,
) -> Rollout:
    """`scores` are those of the completions whose own task is to score them, in their order."""
    verdict: Score | ScoringFailure
    if played.failure is not None:
        verdict = ScoringFailure(played.failure)
    else:
        verdict = next(scores) if played.score is None else played.score
    rollout = Rollout(
        problem_id=request.problem.id,
        prompt_hash=request.prompt.hash,
        turns=played.turns,
        reward=None,
        feedback="",
        failure=verdict.reason if isinstance(verdict, ScoringFailure) else "",
        policy_version=policy_version,
        source=source,
        trace=played.trace,
    )
    if isinstance(verdict, ScoringFailure):
        return rollout
    if rollout.cut_off:
        tokens = len(rollout.turns[-1].completion.tokens)
        verdict = cut_off_score(verdict, tokens, rollout.end, len(rollout.turns))
    return replace(rollout, reward=verdict.reward, feedback=verdict.feedback, failure=None)
