"""Validation within a run: the same weights under the same prompt are measured once."""

from collections.abc import Mapping, Sequence

from fastslow.config import Config
from fastslow.measuring.evaluation import evaluate_prompt, kl_to_base
from fastslow.methods.registry import find_method
from fastslow.runs import metrics as m
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SamplingParams
from fastslow.tasks.base import Task
from fastslow.types import Problem, Prompt

Components = Mapping[str, str]


class Validation:
    """Measures the policy on the validation splits of a run's task."""

    def __init__(self, config: Config, task: Task, engine: PolicyEngine) -> None:
        self.config, self.task, self.engine = config, task, engine
        self.method = find_method(config.method)
        self.seed = derive_seed(config.seed, "validation")
        # By policy version, prompt hash and task.
        self._measured: dict[tuple[int, str, str], dict[str, float]] = {}

    def measure(
        self,
        current: Task,
        population: Sequence[Prompt],
        by_kind: Mapping[str, str],
        library: Mapping[str, Sequence[Components]],
    ) -> dict[str, float]:
        """Everything that a metrics line says of validation.

        `current` is the task that is trained on now. On it: mean@k, best@k and KL of the population's first prompt (of the
        seed prompt where the method answers under it), and mean@k with each kind of problems under the
        member that `by_kind` names by hash. Of a stream, mean@k on every task, and on earlier ones under the first prompt
        that the `library` has for them. Raises InfrastructureError where nothing could be scored.
        """
        k = self.config.evaluation.k
        mean = m.VAL_MEAN.key(k=k)
        bare = self.method.answers_under_seed_prompt
        prompt = self.task.seed_prompt if bare else population[0]
        values = dict(self._once(current, prompt))
        problems = self.problems(current)
        if len({problem.kind for problem in problems}) > 1 and not bare:
            members = {each.hash: each for each in population}
            prompts = {p.kind: members.get(by_kind.get(p.kind, ""), prompt) for p in problems}
            same = set(prompts.values()) == {prompt}
            by_kind_mean = values[mean] if same else self._by_kind(current, problems, prompts)
            values[m.VAL_BY_KIND.key(k=k)] = by_kind_mean
        if len(self.task.parts) > 1:
            for part in self.task.parts:
                values[m.VAL_TASK.key(k=k, task=part.name)] = self._once(part, prompt)[mean]
                if part.name in library and part.name != current.name:
                    own = Prompt.from_dict(library[part.name][0])
                    values[m.VAL_TASK_OWN.key(k=k, task=part.name)] = self._once(part, own)[mean]
        return values

    def _once(self, task: Task, prompt: Prompt) -> dict[str, float]:
        key = (self.engine.policy_version, prompt.hash, task.name)
        values = self._measured.get(key) or self._validate(task, prompt)
        # What could not be scored now may be scored the next time.
        if not values[m.VAL_MASKED.name]:
            self._measured[key] = values
        return values

    def _validate(self, task: Task, prompt: Prompt) -> dict[str, float]:
        settings, problems = self.config.evaluation, self.problems(task)
        episodes = self.config.episodes
        result = evaluate_prompt(self.engine, task, problems, prompt, settings.k, self._params, self.seed, episodes)
        values: dict[str, float] = {
            m.VAL_MEAN.key(k=settings.k): result.mean,
            m.VAL_BEST.key(k=settings.k): result.best,
            m.VAL_MASKED.name: result.masked,
        }
        if settings.kl_problems:
            some, frozen = problems[: settings.kl_problems], not self.method.moves_weights
            at_one = SamplingParams(self.config.sampling.max_tokens)
            measured = None if frozen else kl_to_base(self.engine, task, some, prompt, at_one, self.seed, episodes)
            metric = m.KL if measured is None else measured.metric
            values[metric.name] = 0.0 if measured is None else measured.mean
        return values

    def _by_kind(self, task: Task, problems: Sequence[Problem], prompts: Mapping[str, Prompt]) -> float:
        k, results = self.config.evaluation.k, []
        for kind, prompt in prompts.items():
            some = [problem for problem in problems if problem.kind == kind]
            results.append(
                evaluate_prompt(self.engine, task, some, prompt, k, self._params, self.seed, self.config.episodes)
            )
        return sum(result.mean * result.problems for result in results) / sum(result.problems for result in results)

    def problems(self, task: Task) -> Sequence[Problem]:
        """Those that an evaluation of a task asks."""
        return task.problems("validation")[: self.config.evaluation.problems]

    @property
    def _params(self) -> SamplingParams:
        settings = self.config.evaluation
        return SamplingParams(self.config.sampling.max_tokens, settings.temperature, settings.top_p)
