"""What a config comes to, in plain words, before any weights load: `fastslow train --dry-run`."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from fastslow.config import Config
from fastslow.fast.proposers.estimate import calls_of_a_cycle, estimate_reflection
from fastslow.fast.proposers.settings import ReflectionConfig
from fastslow.fast.settings import GepaConfig
from fastslow.given import check_lent
from fastslow.methods.registry import find_method
from fastslow.runs.directory import RunDirectory
from fastslow.slow.bare import is_bare
from fastslow.slow.context_room import ContextRoom, context_room
from fastslow.slow.local import loading, lora
from fastslow.slow.local.frozen import empty_model, frozen_parameters
from fastslow.slow.schedule import describe_schedule
from fastslow.tasks.base import SPLITS, Task, has_turns, reference_of
from fastslow.text import shown
from fastslow.training.build import check, check_lengths
from fastslow.training.feedback import silence
from fastslow.training.resume import find_checkpoint

CONTEXT_SAMPLE = 32
ANSWER_SAMPLE = 1000
ANSWER_SHARE = 0.3
"""Of training problems: an answer that is right on so many is worth a word."""
UNLIMITED_GIB = 1e9
ADAMS = {
    "adamw": "AdamW",
    "adamw_8bit": "AdamW with 8-bit moments",
    "paged_adamw_8bit": "AdamW with paged 8-bit moments",
}
DRY_CONNECT_S = 3.0
"""A dry run waits for a server no longer, in seconds."""
# Of the arithmetic limit; docs/performance.md has measured shares.
TYPICAL_SHARE = 0.5


@dataclass(frozen=True)
class Estimate:
    """Upper bounds for a whole run. `sampled_tokens` are those that sampling computes, contexts included."""

    steps: int
    cycles: int
    rollouts: int
    evaluation_rollouts: int
    sampled_tokens: float
    flops: float
    seconds: float | None


def describe(config: Config, *, resume: Path | None = None) -> str:
    """Validate everything that needs no weights and explain the recipe.

    Raises: ConfigError or TaskError, as `train` would.
    """
    check_lent(config.model_dump(mode="json"), config.output if resume is None else resume)
    config, task = check(_impatient(config))
    room, complaints = context_room(config, task), list[str]()
    if resume is None:
        RunDirectory(Path(config.output)).check_free()
        check_lengths(config, task, room)
    else:
        complaints = find_checkpoint(RunDirectory(resume)).complaints
    device = loading.device_of(config.model) if config.engine == "local" else None
    parameters, multiplied = count_parameters(config)
    context_tokens = mean_context_tokens(task, room)
    estimate = estimate_run(config, multiplied, context_tokens, measured_flops(device, config) if device else None)
    sections = {
        **({"Broken": complaints} if complaints else {}),
        "Model": _model(config, device, parameters),
        "Task": _task(config, task, room, context_tokens),
        "Slow weights": [*_slow(config), *_memory(config, device, room)],
        "Fast weights": [*_fast(config), *_reflection(config, task, room, estimate.cycles), *silence(config, task)],
        "Measured": _evaluation(config),
        "It comes to": _totals(config, estimate),
    }
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items())


def _impatient(config: Config) -> Config:
    """The config of a look at a run: a server that is to be started yet is not waited for."""
    if config.tinker is None or config.tinker.connect_timeout_s <= DRY_CONNECT_S:
        return config
    return config.model_copy(update={"tinker": config.tinker.model_copy(update={"connect_timeout_s": DRY_CONNECT_S})})


def count_parameters(config: Config) -> tuple[int, int]:
    """Parameters of the model, and those of them that a token is multiplied with: an input embedding that is not the
    head as well is only looked up. From the model's config alone. Raises ConfigError where there is none.
    """
    model = empty_model(config.model)
    total = sum(parameter.numel() for parameter in model.parameters())
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings() is not None and model.get_output_embeddings().weight is table
    if config.model.lora is not None:
        lora.add_lora(model, config.model.lora, config.seed)  # raises where its targets do not exist
    return total, total if tied else total - table.numel()


def mean_context_tokens(task: Task, room: ContextRoom) -> float:
    """Mean length of a context under the seed prompt, over a few training problems."""
    problems = task.problems("train")[:CONTEXT_SAMPLE]
    return sum(room.tokens(p, task.seed_prompt) for p in problems) / len(problems)


def measured_flops(device: torch.device, config: Config) -> float:
    """FLOP/s of a matrix product on the device in the run's precision, measured for a moment."""
    dtype = loading.compute_dtype(config.model, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    (a @ b)[0, 0].item()
    start, products = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2:
        (a @ b)[0, 0].item()
        products += 1
    return products * 2 * size**3 / (time.perf_counter() - start)


def estimate_run(config: Config, parameters: int, context_tokens: float, flops_per_s: float | None) -> Estimate:
    """Upper bounds, with every completion as long as it may be and every cycle's budget spent; no time for a server.

    2 FLOPs a parameter and token for each pass forwards, 6 for training (4 with LoRA, which needs no gradient of the
    frozen weights), 2 more for the KL penalty or for the teacher, and 2 for the gradient under the seed prompt. A
    context is computed once for all rollouts of its problem and prompt.
    """
    loop, method = config.loop, find_method(config.method)
    per_step = loop.problems_per_step * loop.group_size
    samples = method.searches(config) and config.fast.scores == "anchors"
    per_cycle = config.fast.metric_calls if samples else 0
    searching, training = _split_steps(config, per_step, per_cycle)
    steps = searching + training
    cycles = searching + (-(-training // loop.steps_per_cycle) if method.cycles_while_training else 0)
    rollouts = training * per_step + cycles * per_cycle
    settings = config.evaluation
    evaluations = 1 + steps // settings.every if settings.every else 0
    validation = evaluations * (settings.problems * settings.k + settings.kl_problems)
    step_contexts = loop.problems_per_step * method.answering_prompts(config)
    contexts = training * step_contexts + cycles * per_cycle + evaluations * (settings.problems + settings.kl_problems)
    longest = config.sampling.max_tokens
    sampled = contexts * context_tokens + (rollouts + validation) * longest
    learned = training * (step_contexts * context_tokens + per_step * longest)
    passes = (4 if config.model.lora else 6) + (2 if config.slow.kl_coefficient or method.needs_distributions else 0)
    passes += 2 if is_bare(config.slow) else 0
    flops = parameters * (2.0 * sampled + passes * learned)
    seconds = None if flops_per_s is None else flops / (TYPICAL_SHARE * flops_per_s)
    return Estimate(steps, cycles, rollouts, validation, sampled, flops, seconds)


def _split_steps(config: Config, per_step: int, per_cycle: int) -> tuple[int, int]:
    """Steps that only search, and steps that train, within the budget of rollouts."""
    method = find_method(config.method)
    searching = min(method.search_steps(config), config.steps)
    training, budget = config.steps - searching, config.max_rollouts
    if budget is None:
        return searching, training
    searching = min(searching, -(-budget // max(per_cycle, 1)))
    left = max(budget - searching * per_cycle, 0)
    pace = per_step + (per_cycle / config.loop.steps_per_cycle if method.cycles_while_training else 0.0)
    return searching, min(training, -(-left // max(int(pace), 1)))


# -- the sections ------------------------------------------------------------------------------------------------------


def _model(config: Config, device: torch.device | None, parameters: int) -> list[str]:
    model, tinker = config.model, config.tinker
    if ":" in config.engine:
        return [f"{model.name}: {parameters / 1e6:.0f} M parameters, sampled and trained by {config.engine}"]
    if device is None and tinker is not None:
        what = "every parameter is" if model.lora is None else f"a LoRA adapter of rank {model.lora.rank} is"
        return [
            f"{model.name}: {parameters / 1e6:.0f} M parameters, {what} trained by the server at {tinker.base_url}",
            f"the server is taken as {tinker.backend!r}: that decides how losses are summed and thresholds are sent",
        ]
    device = device or torch.device("cpu")
    dtype = str(loading.compute_dtype(model, device)).removeprefix("torch.")
    lora, start = model.lora, loading.adapter_of(model)
    trained = "all of them are trained" if lora is None else f"a LoRA adapter of rank {lora.rank} is trained"
    if config.slow.freeze:
        frozen = sum(parameter.numel() for parameter in frozen_parameters(empty_model(model), config.slow.freeze))
        trained = f"all but {frozen / 1e6:.2f} M of them are trained"
    base = "its frozen copy" if lora is None else "the model without its adapter"
    name = model.name if start is None else f"{model.name}, an adapter of {start.base}"
    if start is not None:
        trained += ", the adapter merged into them" if lora is None else ", from these weights on"
        base = "a frozen copy of both" if lora is None else "the model with a frozen copy of the adapter"
    return [
        f"{name}: {parameters / 1e6:.0f} M parameters, {trained}; the base policy is {base}",
        f"computed in {dtype} on {device}, optimiser state in float32",
    ]


def _task(config: Config, task: Task, room: ContextRoom, context_tokens: float) -> list[str]:
    sizes = ", ".join(f"{len(task.problems(split))} {split}" for split in SPLITS)
    lines = [f"{task.name}: {sizes} problems, disjoint; about {context_tokens:.0f} context tokens"]
    if room.limit:
        left = room.limit - room.longest - room.max_tokens
        lines.append(
            f"the longest takes {room.longest} tokens of the model's {room.limit}, and a completion {room.max_tokens}: "
            f"{left} are left for longer prompts"
        )
    if has_turns(task):
        lines.append(
            f"episodes of up to {config.episodes.max_turns} turns: what is estimated here counts one turn of each"
        )
    lines += commonest_answer(task)
    return lines + [f"seed prompt, {name}: {text!r}" for name, text in task.seed_prompt.components]


def commonest_answer(task: Task) -> list[str]:
    """What one answer to every problem is worth, where that is much: to learn it alone is not to learn the task."""
    problems = task.problems("train")[:ANSWER_SAMPLE]
    answers = Counter(answer for problem in problems if (answer := reference_of(task, problem)) is not None)
    if not answers:
        return []
    answer, count = answers.most_common(1)[0]
    if len(answers) == 1 or count < ANSWER_SHARE * len(problems):
        return []
    share = f"{count / len(problems):.0%}"
    return [f"always answering {shown(answer)} is right on {share} of training problems: a policy may learn just that"]


def _slow(config: Config) -> list[str]:
    method, slow = find_method(config.method), config.slow
    if not method.moves_weights:
        return [f"frozen: method is {config.method}"]
    clip = f"{slow.max_grad_norm:g}" if slow.max_grad_norm else "none"
    rate = describe_schedule(slow, config.steps - method.search_steps(config))
    adam = f"{ADAMS[slow.optimiser]}: {rate}, gradient norm at most {clip}"
    if not method.needs_distributions:
        adam += f"; KL penalty towards the base: {f'{slow.kl_coefficient:g}' if slow.kl_coefficient else 'none'}"
    return [*method.of_an_update(config), adam]


def _memory(config: Config, device: torch.device | None, room: ContextRoom) -> list[str]:
    """What `slow.memory_gib` holds, or what a run takes without it.
    Raises ConfigError where it does not hold the longest problem under the seed prompt.
    """
    if device is None or not find_method(config.method).moves_weights:
        return []
    from fastslow.slow.local.dry_memory import dry_plan

    distils, slow, longest = find_method(config.method).needs_distributions, config.slow, room.longest + room.max_tokens
    if slow.memory_gib is None:
        unlimited = slow.model_copy(update={"memory_gib": UNLIMITED_GIB})
        plan = dry_plan(config.model_copy(update={"slow": unlimited}), device, distils=distils)
        return (
            [] if plan is None else [plan.estimate(longest, slow.microbatch_tokens, slow.sample_rows, room.max_tokens)]
        )
    plan = dry_plan(config, device, distils=distils)
    if plan is None:
        return [
            f"memory: at most {config.slow.memory_gib:g} GiB; what this model takes is known once its "
            "weights are loaded"
        ]
    plan.check(longest)
    return [f"{plan.describe(longest)}, under the seed prompt"]


def _fast(config: Config) -> list[str]:
    fast, loop = config.fast, config.loop
    method = find_method(config.method)
    if not method.searches(config):
        return [f"frozen: {method.why_prompts_stay(config)}"]
    population = method.population_size(config)
    lookahead = loop.problems_per_step * loop.steps_per_cycle
    anchors = min(fast.anchor_problems, lookahead)
    fitting = max(1, fast.metric_calls // (2 * population))
    proposer = fast.proposer
    problems = (
        f"anchors: {min(anchors, fitting)} of the {lookahead} problems looked ahead at, once the population is full"
        if fast.scores == "anchors"
        else f"scores: RL's own rollouts of the last {min(loop.reuse_max_age, loop.steps_per_cycle)} steps; "
        "nothing is sampled"
    )
    lines = [
        f"{fast.optimiser} {method.when_it_searches(config)}: at most {fast.metric_calls} metric calls, "
        f"{population} prompts kept",
        problems,
        f"proposer: {proposer.described}, {proposer.recipe} recipe, prompts of at most "
        f"{proposer.max_prompt_chars} characters",
    ]
    if proposer.kind == "policy":
        lines.append("what the policy writes as reflection counts as sampled rollouts, on top of the metric calls")
    if isinstance(fast, GepaConfig) and fast.held_out:
        lines.append(f"{fast.held_out:.0%} of the anchors are kept from reflection; a child must gain on them as well")
    if isinstance(fast, GepaConfig) and fast.ties == "problems":
        lines.append("while nothing scores, complaints turn a child down that grow on more problems than they shrink")
    if fast.max_backoff:
        lines.append(f"searches that bring nothing are followed by pauses of up to {fast.max_backoff} cycles")
    if method.reuses_rollouts:
        age = loop.reuse_max_age
        lines.append(f"rollouts are reused for {age} policy versions" if age else "rollouts are not reused")
    return lines


def _reflection(config: Config, task: Task, room: ContextRoom, cycles: int) -> list[str]:
    """Calls, tokens and money of a reflection LM; and whether there is anything to merge."""
    fast, method = config.fast, find_method(config.method)
    if not method.searches(config) or not isinstance(fast, GepaConfig):
        return []
    lines, population = [], method.population_size(config)
    if fast.use_merge and len(task.seed_prompt.components) == 1:
        lines.append("fast.use_merge: the prompt of this task has one component, so that there is nothing to merge")
    if isinstance(fast.proposer, ReflectionConfig):
        anchors = min(fast.anchor_problems, config.loop.problems_per_step * config.loop.steps_per_cycle)
        # Seeds take half of the budget at most. One alone, as before the first cycle, leaves most of it for children.
        alone, all_of_them = (max(1, min(anchors, fast.metric_calls // (2 * seeds))) for seeds in (1, population))
        most = calls_of_a_cycle(fast.metric_calls, alone, fast.reflection_minibatch, 1)[1]
        fewest = calls_of_a_cycle(fast.metric_calls, all_of_them, fast.reflection_minibatch, population)[0]
        problem, empty = task.problems("train")[0], room.encode([{"role": "user", "content": ""}], ())
        found = estimate_reflection(
            fast.proposer,
            calls=(min(fewest, most), most),
            cycles=cycles,
            minibatch=min(fast.reflection_minibatch, anchors),
            prompt=task.seed_prompt,
            question="\n\n".join(message["content"] for message in problem.messages if message["role"] != "system"),
            answer_tokens=config.sampling.max_tokens,
            count=lambda text: len(room.encode([{"role": "user", "content": text}], ())) - len(empty),
        )
        lines += found.describe()
    return lines


def _evaluation(config: Config) -> list[str]:
    settings = config.evaluation
    if not settings.every:
        return ["nothing: evaluation.every is 0"]
    prompt = find_method(config.method).measured_prompt
    both = " and of the seed prompt" if settings.seed_prompt or is_bare(config.slow) else ""
    ways = {"local": "over the full vocabulary", "tinker": "estimated from sampled tokens"}
    how = ways.get(config.engine, "as the engine measures it")
    return [
        f"mean@{settings.k} and best@{settings.k} of the {prompt}{both} on up to {settings.problems} validation "
        f"problems at temperature {settings.temperature:g}, top-p {settings.top_p:g}, every {settings.every} steps",
        f"KL to the base {how} on {settings.kl_problems} of them",
    ]


def _totals(config: Config, estimate: Estimate) -> list[str]:
    budget = f", or {config.max_rollouts} sampled rollouts" if config.max_rollouts else ""
    time = "" if estimate.seconds is None else f", about {_hours(estimate.seconds)} here"
    return [
        f"ends after {config.steps} steps{budget}; a checkpoint every {config.checkpoint_every} steps "
        f"in {config.output}",
        f"about {estimate.steps} steps and {estimate.cycles} cycles if every cycle spends its metric calls: "
        f"{estimate.rollouts} rollouts, and {estimate.evaluation_rollouts} more to evaluate",
        f"if every completion takes its {config.sampling.max_tokens} tokens: {estimate.sampled_tokens / 1e6:.2f} M "
        f"tokens to sample, {estimate.flops / 1e15:.3g} PFLOP in all{time}; less where they are shorter",
    ]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"
