"""An engine that says what it is told in each turn, with a real chat template: for episodes of several turns."""

from collections.abc import Callable, Sequence
from typing import Any

from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.slow.chat import ChatRenderer
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.base import Task
from fastslow.types import Completion, Rollout

from tiny import make_tokenizer
from toy import LettersTask

STRIPS = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% "
    "endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Speaker:
    """Says the next of some texts in each turn, to every context alike, and ends it; `cut`: without an end."""

    policy_version = 3
    context_limit: int | None = None

    def __init__(self, *texts: str, cut: bool = False, template: str | None = None) -> None:
        tokenizer = make_tokenizer(template) if template else make_tokenizer()
        self.renderer = ChatRenderer(tokenizer)
        self.tokenizer, self.texts, self.cut = tokenizer, texts, cut
        self.calls: list[list[SampleRequest]] = []

    def encode(self, messages: Sequence[Any]) -> tuple[int, ...]:
        return self.renderer.encode(messages)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        text = self.texts[len(self.calls) % len(self.texts)]
        self.calls.append(list(requests))
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = tuple(ids if self.cut else [*ids, self.tokenizer.eos_token_id])
        made = Completion(tokens, (-1.0,) * len(tokens), "length" if self.cut else "stop")
        return [[made] * request.n for request in requests]


def roll(engine: Any, task: Task, n: int = 1, problems: int = 1, **settings: Any) -> list[list[Rollout]]:
    requests = [
        RolloutRequest(p, task.seed_prompt, n, seed=7 + i) for i, p in enumerate(task.problems("train")[:problems])
    ]
    options = {name: settings.pop(name) for name in ("context_limit",) if name in settings}
    limits = EpisodesConfig(**settings)
    return make_rollouts(engine, task, requests, SamplingParams(8), "rl", episodes=limits, **options)


def play(agent: Callable[..., Any], engine: Speaker | None = None, **options: Any) -> Rollout:
    """One rollout of an agent."""
    names = ("max_turns", "max_tokens", "max_message_chars", "step_timeout_s", "context_limit")
    settings = {name: options.pop(name) for name in names if name in options}
    ((rollout,),) = roll(engine or Speaker("a"), AgentTask(agent, LettersTask(), **options), **settings)
    return rollout
