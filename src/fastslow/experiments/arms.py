"""Arms: methods, and methods one after the other, that spend the same budget of sampled rollouts from the same seeds.

An arm is one phase or two. The second goes on from the first: from its last weights, or under its best
prompt. All rollouts of both count, the search's included, and the learning curve of an arm is that of its
phases, one behind the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.experiments.parts import Measure, Part
from fastslow.experiments.records import Line, Settings
from fastslow.measuring.statistics import Curve
from fastslow.methods.registry import find_method
from fastslow.runs import metrics as m

OWN, SEED = "own prompt", "seed prompt"
"""The measurements on the test split: the trained weights under the best prompt, and under the task's seed prompt."""


@dataclass(frozen=True)
class Phase:
    """One run of an arm. `share` of the arm's rollouts is its budget. `weights`: it begins with the last weights of the
    phase before; `prompt`: the best prompt of that phase is its seed prompt.
    """

    method: str
    settings: Settings = field(default_factory=dict)
    share: float = 1.0
    weights: bool = False
    prompt: bool = False


@dataclass(frozen=True)
class Arm:
    """What is compared; `title` as it stands in tables."""

    title: str
    phases: tuple[Phase, ...]


ARMS: Mapping[str, Arm] = {
    "fst": Arm("FST", (Phase("fst"),)),
    "rl": Arm("RL alone", (Phase("rl"),)),
    "prompt": Arm("GEPA alone", (Phase("prompt"),)),
    "rl-prompt": Arm("RL, then GEPA", (Phase("rl", share=0.75), Phase("prompt", share=0.25, weights=True))),
    "prompt-rl": Arm("GEPA, then RL", (Phase("prompt", share=0.25), Phase("rl", share=0.75, prompt=True))),
    "fst-policy": Arm("FST, the policy reflects", (Phase("fst", {"fast.proposer": {"kind": "policy"}}),)),
    "fst-bare": Arm(
        "FST, bare gradient",
        (Phase("fst", {"slow.gradient_context": "bare", "slow.bare_member": True}),),
    ),
    "fst-rollouts": Arm(
        "FST, scored by RL's rollouts", (Phase("fst", {"fast.scores": "rollouts", "fast.max_backoff": 0}),)
    ),
    "fst-ties": Arm("FST, tie rule", (Phase("fst", {"fast.ties": "problems"}),)),
    "distill": Arm("FST-distill", (Phase("distill"),)),
}
"""Every arm by name. GEPA gets a quarter of the rollouts where RL has the rest: it hardly moves after a few cycles."""
MOST_CYCLES = 40
"""Of GEPA under frozen weights. It then finds hardly a pair of prompt and problem that it has not sampled, and would go
on for hundreds of cycles of one rollout each without another prompt.
"""


def check_arms(config: Config) -> None:
    """Raises ConfigError where arms could not be compared."""
    if config.max_rollouts is None:
        raise ConfigError(
            "max_rollouts: arms are compared at equal sampled rollouts: set it, and steps so high that it "
            "is what ends a run"
        )
    if not config.evaluation.every:
        raise ConfigError(
            "evaluation.every: 0 measures no learning curve, which arms are compared by: set it to 5 or so"
        )


def arm_parts(
    config: Config, arms: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Settings]
) -> list[Part]:
    """The runs of each arm from each seed. `settings` are dotted keys by the name of an arm or of a method: a phase has
    those of its method, then its own, then those of the arm.
    """
    return [part for seed in seeds for name in arms for part in _parts(config, name, seed, settings)]


def part_names(arm: str, seed: int) -> list[str]:
    """The names of the runs of an arm from a seed, one for each phase."""
    phases = len(ARMS[arm].phases)
    return [f"{arm}-{seed}-phase-{number}" for number in range(1, phases)] + [f"{arm}-{seed}"]


def _parts(config: Config, name: str, seed: int, settings: Mapping[str, Settings]) -> list[Part]:
    arm, budget = ARMS[name], config.max_rollouts or 0
    made: list[Part] = []
    for number, (phase, named) in enumerate(zip(arm.phases, part_names(name, seed), strict=True), start=1):
        last = number == len(arm.phases)
        before = made[-1].name if made else None
        own: dict[str, Any] = {
            "evaluation.seed_prompt": True,
            **({} if find_method(phase.method).moves_weights else _of_cycles(config)),
            **settings.get(phase.method, {}),
            **phase.settings,
            **(settings.get(name, {}) if name != phase.method else {}),
            "max_rollouts": max(1, round(phase.share * budget)),
            "method": phase.method,
            "seed": seed,
        }
        made.append(
            Part(
                named,
                own,
                {"arm": name, "phase": number, "seed": seed},
                start=before if phase.weights else None,
                prompt=before if phase.prompt else None,
                measures=_measures(config) if last else (),
            )
        )
    return made


def _of_cycles(config: Config) -> dict[str, Any]:
    """A step of GEPA alone is a whole cycle."""
    every = max(1, config.evaluation.every // config.loop.steps_per_cycle)
    return {"evaluation.every": every, "steps": min(config.steps, MOST_CYCLES)}


def _measures(config: Config) -> tuple[Measure, ...]:
    """On the test split, under both prompts, with the KL to the model that the first phase began with."""
    from fastslow.tasks.registry import build_task

    seed_prompt = build_task(config.task).seed_prompt
    task: dict[str, object] = {"model.name": config.model.name, "task.seed_prompt": seed_prompt.as_dict()}
    return Measure(OWN, task, prompt="best", kl=True), Measure(SEED, task, prompt="seed", kl=True)


# -- curves ------------------------------------------------------------------------------------------------------------


def arm_curves(lines: Sequence[Line], arms: Sequence[str]) -> dict[str, dict[int, Curve]]:
    """The learning curve of each arm by seed, of the arms and seeds whose last phase has ended."""
    found: dict[str, dict[int, Curve]] = {}
    for name in arms:
        by_seed: dict[int, dict[int, Line]] = {}
        for line in lines:
            if line["labels"].get("arm") == name:
                by_seed.setdefault(_number(line, "seed"), {})[_number(line, "phase")] = line
        whole = {seed: runs for seed, runs in by_seed.items() if len(runs) == len(ARMS[name].phases)}
        found[name] = {
            seed: _joined(ARMS[name], [runs[phase] for phase in sorted(runs)]) for seed, runs in sorted(whole.items())
        }
    return {name: curves for name, curves in found.items() if curves}


def last_lines(lines: Sequence[Line], name: str) -> dict[int, Line]:
    """The line of an arm's last phase by seed."""
    phases = len(ARMS[name].phases)
    mine = [line for line in lines if line["labels"].get("arm") == name and line["labels"].get("phase") == phases]
    return {_number(line, "seed"): line for line in mine}


def _joined(arm: Arm, lines: Sequence[Line]) -> Curve:
    """One curve of the lines of an arm's phases: steps, rollouts and seconds go on where the phase before ended."""
    points: list[dict[str, float]] = []
    step = rollouts = seconds = 0.0
    for phase, line in zip(arm.phases, lines, strict=True):
        for point in line["curve"][1 if points else 0 :]:
            moved = {**point, "step": step + point["step"], "rollouts": rollouts + point["rollouts"]}
            points.append(_as_of_the_arm(phase, {**moved, "seconds": seconds + point["seconds"]}))
        totals = line["totals"]
        step, rollouts, seconds = (
            step + totals["steps"],
            rollouts + totals["sampled"],
            seconds + totals["seconds"],
        )
    return points


def _as_of_the_arm(phase: Phase, point: dict[str, float]) -> dict[str, float]:
    """A later phase measures its KL from its own start, and takes the first one's prompt for the seed prompt:
    what is not of the arm is NaN or left out.
    """
    if phase.weights:
        point |= {name: math.nan for name in point if m.is_evaluation(name) and name.startswith(f"{m.KL.group}/")}
    if phase.prompt:
        foreign = (m.VAL_SEED, m.KL_SEED, m.KL_SEED_ESTIMATE, m.KL_SEED_COMPLETION)
        return {name: value for name, value in point.items() if (f := m.find(name)) is None or f.metric not in foreign}
    return point


def _number(line: Line, label: str) -> int:
    return int(str(line["labels"][label]))
