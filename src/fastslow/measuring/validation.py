"""Validation within a run: the same weights under the same prompt are measured once."""

from collections.abc import Mapping, Sequence

from fastslow.config import Config
from fastslow.measuring.evaluation import evaluate_prompt, evaluate_prompts, kl_to_base
from fastslow.methods.registry import find_method
from fastslow.runs import metrics as m
from fastslow.seeding import derive_seed
from fastslow.slow.bare import is_bare
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

        `current` is the task that is trained on now. On it: mean@k, best@k and KL of the population's first prompt (of
        the seed prompt where the method answers under it), mean@k with each kind of problems under the member that
        `by_kind` names by hash, and by option mean@k and KL under the seed prompt. Of a stream, mean@k on every task,
        and on earlier ones under the first prompt that the `library` has for them. Raises InfrastructureError where
        nothing could be scored.
        """
        k = self.config.evaluation.k
        mean = m.VAL_MEAN.key(k=k)
        bare = self.method.answers_under_seed_prompt
        prompt = self.task.seed_prompt if bare else population[0]
        under_seed = self.config.evaluation.seed_prompt or is_bare(self.config.slow)
        own, *seed = self._once(current, prompt, *([self.task.seed_prompt] if under_seed else []))
        values = dict(own)
        problems = self.problems(current)
        if len({problem.kind for problem in problems}) > 1 and not bare:
            members = {each.hash: each for each in population}
            prompts = {p.kind: members.get(by_kind.get(p.kind, ""), prompt) for p in problems}
            same = set(prompts.values()) == {prompt}
            by_kind_mean = values[mean] if same else self._by_kind(current, problems, prompts)
            values[m.VAL_BY_KIND.key(k=k)] = by_kind_mean
        for under in seed:
            values |= self._as_of_the_seed_prompt(under, k)
        if len(self.task.parts) > 1:
            for part in self.task.parts:
                remembered = library[part.name][:1] if part.name in library and part.name != current.name else ()
                here, *found = self._once(part, prompt, *map(Prompt.from_dict, remembered))
                values[m.VAL_TASK.key(k=k, task=part.name)] = here[mean]
                values |= {m.VAL_TASK_OWN.key(k=k, task=part.name): each[mean] for each in found}
        return values

    def _as_of_the_seed_prompt(self, found: Mapping[str, float], k: int) -> dict[str, float]:
        """mean@k and KL by their names under the task's own prompt."""
        kept = {m.VAL_MEAN.key(k=k): m.VAL_SEED.key(k=k), m.KL.name: m.KL_SEED.name}
        kept |= {m.KL_ESTIMATE.name: m.KL_SEED_ESTIMATE.name, m.KL_COMPLETION.name: m.KL_SEED_COMPLETION.name}
        return {kept[name]: value for name, value in found.items() if name in kept}

    def _once(self, task: Task, *prompts: Prompt) -> list[dict[str, float]]:
        """Of each prompt, measured together, but for what was measured under these weights already."""
        keys = {prompt: (self.engine.policy_version, prompt.hash, task.name) for prompt in prompts}
        found = {prompt: self._measured[key] for prompt, key in keys.items() if key in self._measured}
        new = [prompt for prompt in keys if prompt not in found]
        found |= zip(new, self._validate(task, new) if new else (), strict=True)
        # What could not be scored now may be scored the next time.
        self._measured |= {keys[prompt]: found[prompt] for prompt in new if not found[prompt][m.VAL_MASKED.name]}
        return [found[prompt] for prompt in prompts]

    def _validate(self, task: Task, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        settings, problems = self.config.evaluation, self.problems(task)
        episodes = self.config.episodes
        results = evaluate_prompts(self.engine, task, problems, prompts, settings.k, self._params, self.seed, episodes)
        found: list[dict[str, float]] = [
            {
                m.VAL_MEAN.key(k=settings.k): result.mean,
                m.VAL_BEST.key(k=settings.k): result.best,
                m.VAL_MASKED.name: result.masked,
            }
            for result in results
        ]
        if settings.kl_problems and self.method.moves_weights:
            some, at_one = problems[: settings.kl_problems], SamplingParams(self.config.sampling.max_tokens)
            measured = kl_to_base(self.engine, task, some, prompts, at_one, self.seed, episodes)
            drifts = [{kl.metric.name: kl.mean, m.KL_COMPLETION.name: kl.per_completion} for kl in measured]
            found = [values | drift for values, drift in zip(found, drifts, strict=True)]
        elif settings.kl_problems:
            found = [values | {m.KL.name: 0.0, m.KL_COMPLETION.name: 0.0} for values in found]
        return found

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
