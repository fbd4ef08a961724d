"""FST-distill: what a prompt says goes into the weights (arXiv 2605.12484, equation 8; `slow/distillation.py`).

The teacher is the base model under an evolved prompt, which is given or searched for first. The student answers under
the task's seed prompt alone, and is measured and deployed under it.
"""

from collections.abc import Mapping
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.methods.base import Method, Session, rollouts_a_step
from fastslow.runs.files import is_run
from fastslow.runs.needed import needed_population
from fastslow.runs.reader import Run
from fastslow.tasks.base import Task
from fastslow.types import Prompt

EVOLVE = "evolve"


class Distillation(Method):
    """A prompt goes into the weights."""

    title = "FST-distill"
    colour = 3
    answers_under_seed_prompt = True
    needs_distributions = True
    cycles_while_training = False
    measured_prompt = "seed prompt"

    def train(self, session: Session) -> None:
        """The search for a teacher's prompt, where none is given, under weights that stay; then distillation."""
        while session.searching and not session.finished:
            session.search(session.next_minibatches())
            session.close_step()
        while not session.finished:
            lookahead = session.next_minibatches()
            teacher = session.teacher()
            for minibatch in session.remaining(lookahead):
                groups = session.roll_out(minibatch, [session.seed_prompt])  # the student's own rollouts
                session.distil(groups, teacher)  # slow weights: one step of reverse KL
                session.close_step()

    def population_size(self, config: Config) -> int:
        """K while the search for a teacher lasts; one prompt where it is given."""
        return 1 if _is_given(config) else config.loop.population_size

    def answering_prompts(self, config: Config) -> int:
        """The student's alone."""
        return 1

    def searches(self, config: Config) -> bool:
        """Where the teacher's prompt is not given."""
        return not _is_given(config) and super().searches(config)

    def search_steps(self, config: Config) -> int:
        """The first `distill.cycles`, where there is a search."""
        return config.distill.cycles if self.searches(config) else 0

    def check(self, config: Config, *, recorded: bool = False) -> None:
        """Raises ValueError where there is no teacher, or no step is left to distil."""
        super().check(config, recorded=recorded)
        if _is_given(config):
            return
        if not self.searches(config):
            raise ValueError(
                f"distill.prompt: 'evolve' needs a search, and fast.optimiser is {config.fast.optimiser!r}: set it to "
                "gepa, or give the prompt"
            )
        if config.steps <= config.distill.cycles:
            raise ValueError(
                f"steps: {config.steps} leaves none to distil, since the first distill.cycles = "
                f"{config.distill.cycles} search for the prompt: raise it"
            )

    def prepare(self, config: Config, task: Task) -> Config:
        """The config with the teacher's prompt as its text, wherever it came from: a resumed run needs it unchanged."""
        if task.stage(0).steps is not None:
            raise ConfigError(
                f"method: 'distill' takes one task, and {task.name!r} is several in turn: distil the "
                "prompt of one of them"
            )
        if not _is_given(config):
            return config
        prompt = _teacher(config.distill.prompt)
        _check_teacher(prompt, config, task)
        return config.model_copy(update={"distill": config.distill.model_copy(update={"prompt": prompt.as_dict()})})

    def given_prompts(self, config: Config) -> Mapping[str, Prompt]:
        """The teacher's, where it is given and resolved to its text."""
        given = config.distill.prompt
        return {"distill.prompt": Prompt.from_dict(given)} if isinstance(given, dict) else {}

    # -- what `--dry-run` says -----------------------------------------------------------------------------------------

    def when_it_searches(self, config: Config) -> str:
        """How often prompts are evolved, in words."""
        return f"in each of the first {config.distill.cycles} steps, weights frozen"

    def why_prompts_stay(self, config: Config) -> str:
        """Why no prompt is evolved, in words."""
        return "the teacher's prompt is given"

    def of_an_update(self, config: Config) -> list[str]:
        """What one step of distillation does, in words."""
        given = config.distill.prompt
        teacher = "the best prompt that the search finds"
        if isinstance(given, dict):
            teacher = ", ".join(f"{name}: {text!r}" for name, text in given.items())
        return [
            f"a step: {rollouts_a_step(config)} of the student, who has the seed prompt; one update",
            f"teacher: the base weights under {teacher}",
            "loss: KL(student || teacher) over the full vocabulary at every token of the student's rollouts; rewards "
            "are measured and not trained on",
        ]


def _is_given(config: Config) -> bool:
    """Whether the teacher's prompt need not be searched for."""
    return config.distill.prompt != EVOLVE


def _check_teacher(prompt: Prompt, config: Config, task: Task) -> None:
    wanted, given = sorted(task.seed_prompt.as_dict()), sorted(prompt.as_dict())
    if wanted != given:
        raise ConfigError(
            f"distill.prompt: has the components {given}, those of task {task.name!r} are {wanted}: name each of them"
        )
    if not any(text.strip() for _, text in prompt.components):
        raise ConfigError(f"distill.prompt: {config.distill.prompt!r} is empty: the teacher needs a prompt")
    if prompt == task.seed_prompt:
        raise ConfigError(
            "distill.prompt: is the task's seed prompt, which the student has as well: there is nothing to distil. "
            "Give the prompt of a run that found a better one"
        )


def _teacher(named: str | dict[str, str]) -> Prompt:
    """The prompt that `distill.prompt` names. Raises ConfigError for what does not exist."""
    if isinstance(named, dict):
        return Prompt.from_dict(named)
    if named.startswith("@"):
        path = Path(named[1:])
        if not path.is_file():
            raise ConfigError(f"distill.prompt: the file {str(path)!r} does not exist")
        return Prompt.of(path.read_text(encoding="utf-8").strip())
    if _is_run(named):
        try:
            return needed_population(Run(named))[0]
        except ConfigError as error:
            raise ConfigError(f"distill.prompt: {error}") from error
    if len(named.split()) < 2:
        raise ConfigError(
            f"distill.prompt: {named!r} is neither evolve, @FILE, the directory of a run nor a text of several words"
        )
    return Prompt.of(named)


def _is_run(name: str) -> bool:
    try:
        return is_run(Path(name))
    except (OSError, ValueError):  # a text that no path could be
        return False
