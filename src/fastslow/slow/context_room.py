"""How long a prompt may be: what the model's context leaves beside a run's longest problems and a whole completion.

It needs the tokenizer and the model's config alone, so that it can be known before any weights load. A
context is a task's `messages` and the tools that its episodes have before they start; what an environment
says first is not known yet.
"""

import logging
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from heapq import nlargest

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.limits import excess, fits
from fastslow.slow.samplers.settings import sampling_limit
from fastslow.tasks.base import Split, Task
from fastslow.types import Message, Problem, Prompt, Tool

logger = logging.getLogger(__name__)

# A prompt is tried with this many of the longest problems: which one is longest may depend on it by a token or two.
PROBES = 4

Context = tuple[Sequence[Message], Sequence[Tool]]
Encode = Callable[[Sequence[Message], Sequence[Tool]], tuple[int, ...]]
Count = Callable[[Iterable[Context]], Iterable[int]]


class ContextRoom:
    """What fits into `limit` positions (None: anything) beside `max_tokens` of completion.

    `problems` are all that a run may ask, by split. `count`: the lengths of what `encode` makes of many contexts, where
    something does that faster.
    """

    def __init__(
        self,
        encode: Encode,
        task: Task,
        limit: int | None,
        max_tokens: int,
        problems: Sequence[tuple[Split, Problem]],
        count: Count | None = None,
    ) -> None:
        self.encode, self.task, self.limit, self.max_tokens = encode, task, limit, max_tokens
        self._problems = problems
        self._count = count or (lambda contexts: (len(encode(*context)) for context in contexts))
        self._shown: dict[tuple[str, Prompt], tuple[Tool, ...]] = {}

    def tokens(self, problem: Problem, prompt: Prompt) -> int:
        """Tokens of a problem's context under a prompt, the tools' schemas among them."""
        return len(self.encode(self.task.messages(problem, prompt), self._tools(problem, prompt)))

    def refusal(self, prompt: Prompt) -> str | None:
        """Why a prompt is too long for the longest problems, in words; None where it fits."""
        if self.limit is None or not self._probes:
            return None
        tokens, problem = max(((self.tokens(p, prompt), p) for p in self._probes), key=lambda pair: pair[0])
        if fits(self.limit, tokens, self.max_tokens):
            return None
        over = tokens + self.max_tokens - self.limit
        return (
            f"the prompt is {over} tokens too long for the model: with problem {problem.id!r}, "
            f"{excess(self.limit, tokens, self.max_tokens)}"
        )

    def max_chars(self, prompt: Prompt, component: str) -> int | None:
        """About how many characters a new text of the component may have, its other components staying; None: no limit.

        Characters a token are those of the longest context, the chat template's own tokens left out.
        """
        if self.limit is None or not self._probes:
            return None
        problem = self._probes[0]
        # One token stands for the text: some templates treat an empty system message in their own way.
        bare = self.tokens(problem, prompt.replace(component, ".")) - 1
        messages = self.task.messages(problem, prompt)
        chars = sum(len(message["content"]) for message in messages)
        markup = len(self.encode([{**message, "content": "."} for message in messages], ())) - len(messages)
        tokens = max(1, len(self.encode(messages, ())) - markup)
        return max(0, (self.limit - self.max_tokens - bare) * chars // tokens)

    def check_problems(self, named: str, prompt: Prompt) -> None:
        """Raises ConfigError where a problem does not fit under a prompt; `named` says which prompt that is."""
        if self.limit is None:
            return
        lengths = self._seed_lengths if prompt == self.task.seed_prompt else self._lengths(prompt)
        too_long = [index for index, tokens in enumerate(lengths) if not fits(self.limit, tokens, self.max_tokens)]
        if not too_long:
            return
        longest = max(too_long, key=lambda index: lengths[index])
        tokens, (split, problem) = lengths[longest], self._problems[longest]
        lower = self.limit - tokens
        ways = [f"lower sampling.max_tokens to {lower}"] if lower > 0 else []
        ways += ["leave such problems out of the task", f"shorten {named}", "take a model with a longer context"]
        raise ConfigError(
            f"sampling.max_tokens: {len(too_long)} of {len(lengths)} problems do not fit into the model's context "
            f"under {named}. The longest, {problem.id!r} of the {split} split, is "
            f"{tokens + self.max_tokens - self.limit} tokens too long: {excess(self.limit, tokens, self.max_tokens)}. "
            f"Ways out: {', '.join(ways[:-1])}, or {ways[-1]}"
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest context under the seed prompt; 0 where nothing fits."""
        return max((self.tokens(problem, self.task.seed_prompt) for problem in self._probes), default=0)

    @cached_property
    def _probes(self) -> list[Problem]:
        """The longest problems under the seed prompt, of those that fit there: no prompt is to blame for the others."""
        lengths = self._seed_lengths
        fitting = (index for index, tokens in enumerate(lengths) if fits(self.limit, tokens, self.max_tokens))
        return [self._problems[index][1] for index in nlargest(PROBES, fitting, key=lambda index: lengths[index])]

    @cached_property
    def _seed_lengths(self) -> Sequence[int]:
        return self._lengths(self.task.seed_prompt)

    def _lengths(self, prompt: Prompt) -> Sequence[int]:
        """Tokens of the context of each problem, in their order."""
        contexts = ((self.task.messages(p, prompt), self._tools(p, prompt)) for _, p in self._problems)
        return array("q", self._count(contexts))

    def _tools(self, problem: Problem, prompt: Prompt) -> tuple[Tool, ...]:
        """The tools of an episode before it starts. Problems of a kind share them, so one episode of each is made."""
        key = (problem.kind, prompt)
        if key not in self._shown:
            try:
                episode = self.task.episode(problem, prompt)
                self._shown[key] = tuple(episode.tools)
                episode.close()
            except Exception as error:  # somebody else's code; a rollout that it breaks is masked and counted
                logger.warning(
                    "problem %r: the tools are not counted, its episode cannot be made: %s", problem.id, error
                )
                self._shown[key] = ()
        return self._shown[key]


def context_room(config: Config, task: Task) -> ContextRoom:
    """The room of a run, from the tokenizer and the model's config. Raises ConfigError where there is neither."""
    from fastslow.slow.chat import ChatRenderer
    from fastslow.slow.local import loading

    model = config.model
    renderer = ChatRenderer(
        loading.load_tokenizer(model), model.chat_template_kwargs, parse_special=model.special_tokens_in_text
    )
    limit = sampling_limit(config.slow.sampler, loading.context_limit(loading.load_text_config(config.model)))
    if config.engine == "tinker" and config.tinker is not None:
        from fastslow.slow.tinker.checks import server_limit

        limit = server_limit(config.model, config.tinker, limit)
    return ContextRoom(renderer.encode, task, limit, config.sampling.max_tokens, _asked(config, task), renderer.count)


def _asked(config: Config, task: Task) -> list[tuple[Split, Problem]]:
    """The problems that a run trains on and validates on."""
    asked: list[tuple[Split, Problem]] = [("train", problem) for problem in task.problems("train")]
    if config.evaluation.every:
        for part in task.parts:
            asked += [("validation", p) for p in part.problems("validation")[: config.evaluation.problems]]
    return asked
