"""What the endpoint costs beside the engine when many agents call at once: 64 agents, 4 calls each.

    python benchmarks/agents_load.py              # measures, then writes the table of docs/performance.md
    python benchmarks/agents_load.py --report     # the table alone

The same conversations four times: as episodes that answer at once, without any endpoint; by agents that call with
`http.client`, which costs next to nothing; by agents that call with the `openai` client, which share what it sends with
or make their own. All agents run in this process, as in training. The model is a random Llama
(`benchmarks/episodes.py`); a turn has 16 tokens in the mean.

CPU seconds are this process's, with one thread in the engine, so that the share is right on a busy machine as well. An
agent that runs nowhere else also computes in them: the `openai` client's own work is a part of what is measured.
"""

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
from episodes import Work, engine_of, measured_or_read, write_model
from episodes_load import Clock, SlowTask
from openai import OpenAI

from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.slow.engine import SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.base import EpisodeTask
from fastslow.types import Prompt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "agents_load.json"
MARK = "agents_load"
SIDES = {
    "episodes": "episodes, no endpoint",
    "http": "agents, `http.client`",
    "shared": "agents, the `openai` client, one `http_client` for all",
    "openai": "agents, the `openai` client, a new one each",
}


class Agents:
    """Agents that call some times, each call going on from the last; `said` is as long as an environment's words."""

    said: ClassVar[dict[str, str]] = {"role": "user", "content": "t301 t301 t302 t303"}

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.sends = httpx.Client(timeout=600.0, limits=httpx.Limits(max_connections=None))

    def openai(self, base_url: str, api_key: str, messages: list[Any]) -> float:
        """With the client that most agents have."""
        with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
            return self._talk(client, messages)

    def shared(self, base_url: str, api_key: str, messages: list[Any]) -> float:
        """With the same, as docs/agents.md says that short episodes should have it."""
        return self._talk(OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=self.sends), messages)

    def _talk(self, client: OpenAI, messages: list[Any]) -> float:
        for _ in range(self.turns):
            choice = client.chat.completions.create(model="policy", messages=messages).choices[0]
            messages = [*messages, {"role": "assistant", "content": choice.message.content}, self.said]
        return 1.0

    def http(self, base_url: str, api_key: str, messages: list[Any]) -> float:
        """With as little as can be."""
        headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        for _ in range(self.turns):
            connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=600)
            body = json.dumps({"model": "policy", "messages": messages})
            connection.request("POST", "/v1/chat/completions", body, headers)
            choice = json.loads(connection.getresponse().read())["choices"][0]
            connection.close()
            messages = [*messages, {"role": "assistant", "content": choice["message"]["content"]}, self.said]
        return 1.0


def play(engine: LocalEngine, task: EpisodeTask, agents: int, turns: int) -> dict[str, Any]:
    """One round: CPU seconds and seconds of the engine and of everything, and what was sampled."""
    requests = [RolloutRequest(p, Prompt.of("t299"), 1, i) for i, p in enumerate(task.problems("train")[:agents])]
    sampling = Clock(engine.sample, time.thread_time)
    sample = engine.sample
    engine.sample = sampling  # type: ignore[method-assign]
    begun = time.perf_counter(), time.process_time()
    try:
        groups = make_rollouts(
            engine, task, requests, SamplingParams(512), "rl", episodes=EpisodesConfig(max_turns=turns)
        )
    finally:
        engine.sample = sample  # type: ignore[method-assign]
    seconds, cpu_s = time.perf_counter() - begun[0], time.process_time() - begun[1]
    rollouts = [rollout for group in groups for rollout in group]
    assert all(rollout.reward is not None for rollout in rollouts), [rollout.failure for rollout in rollouts]
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "engine_cpu_s": sampling.seconds,
        "waves": sampling.calls,
        "calls": sum(len(rollout.turns) for rollout in rollouts),
        "sampled_tokens": sum(rollout.sampled_tokens for rollout in rollouts),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every side, some times in turn, after a short round of each."""
    work = Work(
        prompt_tokens=100,
        turns=options.turns,
        layers=options.layers,
        width=options.width,
        max_tokens=512,
        stop_share=1 / 16,
    )
    caller = Agents(options.turns)
    plain = SlowTask(options.agents, options.turns, 0.0, 0)
    tasks: dict[str, EpisodeTask] = {
        "episodes": plain,
        "http": AgentTask(caller.http, plain),
        "shared": AgentTask(caller.shared, plain),
        "openai": AgentTask(caller.openai, plain),
    }
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), work)
        engine = engine_of(Path(name), work, threads=1)
        for repeat in range(options.repeats + 1):
            for side, task in tasks.items():
                found = play(engine, task, options.agents if repeat else 4, options.turns)
                if repeat:
                    rounds[side].append(found)
    settings = {key: value for key, value in vars(options).items() if key not in ("report", "results")}
    return {"settings": settings, "rounds": rounds}


def report(found: dict[str, Any]) -> str:
    """The table of docs/performance.md."""
    settings = found["settings"]
    lines = [
        f"{settings['agents']} agents at once, at most {settings['turns']} calls each, {settings['layers']} layers of "
        f"width {settings['width']}, one thread. CPU seconds, the least of {settings['repeats']} rounds.",
        "",
        "| conversations of | calls | engine, CPU s | everything else, CPU s | beside the engine, ms a call | share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for side, name in SIDES.items():
        best = min(found["rounds"][side], key=lambda each: each["cpu_s"] - each["engine_cpu_s"])
        beside = best["cpu_s"] - best["engine_cpu_s"]
        lines.append(
            f"| {name} | {best['calls']} | {best['engine_cpu_s']:.2f} | {beside:.2f} | "
            f"{1000 * beside / best['calls']:.1f} | {beside / best['cpu_s']:.1%} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the table from the results")
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4, help="calls of an agent")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    measured_or_read(parser.parse_args(argv), MARK, RESULTS, measure, report)


if __name__ == "__main__":
    main()
