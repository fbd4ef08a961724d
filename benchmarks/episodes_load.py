"""How long the engine waits for environments: 256 episodes at once, 8 turns, 50 ms a step; and what broken ones cost.

    python benchmarks/episodes_load.py              # measures, then writes the table of docs/performance.md
    python benchmarks/episodes_load.py --report     # the table alone

The model is a random Llama (`benchmarks/episodes.py`). A turn has 16 tokens in the mean. Three rounds: every
environment answers after 50 ms, 64 of them side by side and then all of them; and some hang, raise, say a megabyte,
or end their own thread. `--clock cpu`: the engine's seconds are CPU seconds of one thread, for a busy machine;
waiting is always on the wall.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from episodes import Work, engine_of, measured_or_read, write_model

from fastslow.rollouts import waves
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.slow.engine import SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.tasks.base import EpisodeTask, Split
from fastslow.types import Message, Problem, Prompt, Rollout, Score

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "episodes_load.json"
MARK = "episodes_load"
TROUBLE = ("hang", "raise", "flood", "exit")
NAMES = {"hang": "hangs", "raise": "raises", "flood": "says 1 MB", "exit": "ends its thread (`SystemExit`)"}
GOAL = 0.15


class Slow:
    """An environment that takes a while for each answer. In its third step it may break."""

    tools: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, task: "SlowTask", problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        self.steps = 0

    def start(self) -> Sequence[Message]:
        return self.task.messages(self.problem, self.prompt)

    def step(self, text: str) -> Sequence[Message]:
        self.steps += 1
        trouble = self.problem.data["trouble"]
        if trouble and self.steps == 3:
            return self._break(trouble)
        time.sleep(self.task.step_s)
        done = self.steps == self.task.turns
        return () if done else [{"role": "user", "content": f"t{300 + self.steps} t301 t302 t303"}]

    def score(self) -> Score:
        return Score(1.0)

    def close(self) -> None:
        pass

    def _break(self, trouble: str) -> Sequence[Message]:
        if trouble == "hang":
            time.sleep(3600)
        if trouble == "raise":
            raise RuntimeError("the environment broke")
        if trouble == "exit":
            raise SystemExit(1)
        return [{"role": "user", "content": "x" * 1_000_000}]


class SlowTask(EpisodeTask):
    """Episodes of so many turns, some of whose environments break."""

    name: ClassVar[str] = "slow"

    def __init__(self, episodes: int, turns: int, step_s: float, broken: int) -> None:
        self.turns, self.step_s = turns, step_s
        kinds = [TROUBLE[i % len(TROUBLE)] if i < broken else "" for i in range(episodes)]
        self.all = [
            Problem(
                f"slow-{i}",
                ({"role": "user", "content": " ".join(f"t{300 + (i * 7 + j) % 200}" for j in range(60))},),
                {"trouble": kind},
            )
            for i, kind in enumerate(kinds)
        ]

    def problems(self, split: Split) -> Sequence[Problem]:
        return self.all

    def episode(self, problem: Problem, prompt: Prompt) -> Slow:
        return Slow(self, problem, prompt)


class Clock:
    """Seconds in calls of a function."""

    def __init__(self, function: Callable[..., Any], now: Callable[[], float] = time.perf_counter) -> None:
        self.function, self.now, self.seconds, self.calls = function, now, 0.0, 0

    def __call__(self, *arguments: Any) -> Any:
        started = self.now()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += self.now() - started
            self.calls += 1


def play(engine: LocalEngine, task: SlowTask, limits: EpisodesConfig, clock: str) -> dict[str, Any]:
    """One round: seconds of the engine and of environments, and what became of the episodes."""
    requests = [RolloutRequest(problem, Prompt.of("t299"), 1, i) for i, problem in enumerate(task.all)]
    now = time.thread_time if clock == "cpu" else time.perf_counter
    sampling, waiting = Clock(engine.sample, now), Clock(waves.side_by_side)
    sample, ask = engine.sample, waves.side_by_side
    engine.sample = sampling  # type: ignore[method-assign]
    waves.side_by_side = waiting  # type: ignore[assignment]
    started = now()
    try:
        groups = make_rollouts(engine, task, requests, SamplingParams(512), "rl", episodes=limits)
    finally:
        engine.sample, waves.side_by_side = sample, ask  # type: ignore[method-assign]
    seconds = now() - started
    rollouts = [rollout for group in groups for rollout in group]
    return {
        "seconds": seconds + (waiting.seconds if clock == "cpu" else 0.0),
        "sampling_s": sampling.seconds,
        "waiting_s": waiting.seconds,
        "waves": sampling.calls,
        "turns": sum(len(rollout.turns) for rollout in rollouts),
        "episodes": len(rollouts),
        "workers": limits.workers,
        "ends": Counter(rollout.end for rollout in rollouts),
        "broken": outcomes(task, rollouts),
    }


def outcomes(task: SlowTask, rollouts: Sequence[Rollout]) -> dict[str, dict[str, int]]:
    """By what an environment did: how many episodes, how many are masked, and how many have all turns that they had."""
    found: dict[str, dict[str, int]] = {}
    for problem, rollout in zip(task.all, rollouts, strict=True):
        kind = problem.data["trouble"]
        counts = found.setdefault(kind or "well", {"episodes": 0, "masked": 0, "whole": 0})
        counts["episodes"] += 1
        counts["masked"] += rollout.reward is None
        cut = rollout.end == "turn_tokens"
        counts["whole"] += cut or len(rollout.turns) == (3 if kind else task.turns)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both rounds, after a short one that warms up."""
    work = Work(
        prompt_tokens=100,
        turns=options.turns,
        layers=options.layers,
        width=options.width,
        max_tokens=512,
        stop_share=1 / 16,
    )
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), work)
        engine = engine_of(Path(name), work, options.threads)
        usual = EpisodesConfig(max_turns=options.turns)
        wide = EpisodesConfig(max_turns=options.turns, workers=options.episodes)
        short = EpisodesConfig(max_turns=options.turns, step_timeout_s=options.timeout_s)
        play(engine, SlowTask(8, 2, 0.0, 0), usual, options.clock)
        task = SlowTask(options.episodes, options.turns, options.step_s, 0)
        well, beside = (play(engine, task, limits, options.clock) for limits in (usual, wide))
        broken = SlowTask(options.episodes, options.turns, options.step_s, options.broken)
        found = play(engine, broken, short, options.clock)
    settings = {key: value for key, value in vars(options).items() if key not in ("report", "results")}
    return {"settings": settings, "well": well, "wide": beside, "broken": found}


# -- the table ---------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    settings, well, broken = found["settings"], found["well"], found["broken"]
    clock = "CPU seconds of its one thread" if settings["clock"] == "cpu" else "seconds on the wall"
    lines = [
        f"{settings['episodes']} episodes at once, {settings['turns']} turns, {1000 * settings['step_s']:.0f} ms a "
        f"step. {settings['layers']} layers of width {settings['width']}, {settings['threads']} threads.",
        f"The engine's seconds are {clock}, those of waiting are on the wall.",
        f"Broken ones have {settings['timeout_s']:g} s for a step.",
        "",
        "| round | side by side | turns | engine samples, s | waits for environments, s | waits, share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rounds = {"all answer": well, "all answer ": found["wide"], f"{settings['broken']} break": broken}
    for name, each in rounds.items():
        share = each["waiting_s"] / each["seconds"]
        lines.append(
            f"| {name.strip()} | {each['workers']} | {each['turns']} | {each['sampling_s']:.1f} | "
            f"{each['waiting_s']:.2f} | {share:.1%} |"
        )
    lines += [
        "",
        "| an environment that | episodes | masked | with every turn that it had |",
        "| --- | --- | --- | --- |",
    ]
    for kind, name in (*NAMES.items(), ("well", "answers")):
        counts = broken["broken"].get(kind, {"episodes": 0, "masked": 0, "whole": 0})
        lines.append(f"| {name} | {counts['episodes']} | {counts['masked']} | {counts['whole']} |")
    share = well["waiting_s"] / well["seconds"]
    met = "yes" if share < GOAL else "no"
    lines += ["", "| goal | measured | met? |", "| --- | --- | --- |"]
    lines.append(f"| the engine waits for less than {GOAL:.0%} | {share:.1%} | {met} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the tables from the results")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--step-s", type=float, default=0.05)
    parser.add_argument(
        "--broken", type=int, default=16, help="episodes whose environments break, a quarter of each kind"
    )
    parser.add_argument(
        "--timeout-s", type=float, default=2.0, help="for a step, in the round with broken environments"
    )
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    if options.threads != 1 and options.clock == "cpu":
        parser.error("--clock cpu: with more than one thread waiting counts as CPU time; use --threads 1")
    measured_or_read(options, MARK, RESULTS, measure, report)


if __name__ == "__main__":
    main()
