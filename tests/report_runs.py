"""A run directory and an experiment with everything that a report shows, without training: numbers are made up."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.config import parse_config
from fastslow.runs.config_text import config_text

HOSTILE = (
    '</script><script>window.attacked = "script"; alert(1)</script><!-- <img src=x onerror="window.attacked=\'img\'">'
    "<style>body{display:none}</style>\u2028\x1b[31mred\x07 {{data}} ${7*7} &lt;b&gt; \u202egnp.exe \ud800"
)
SEED = {"system": "You are a helpful assistant."}
CHILD = {"system": "You are a helpful assistant.\nSort the items downwards."}
GRANDCHILD = {"system": "You are a helpful assistant.\nSort the items upwards, please."}


def metrics_line(step: int, *, evaluate: bool = True) -> dict[str, Any]:
    """One line; accuracy goes from 0.05 up by 0.15 a step."""
    line: dict[str, Any] = {
        "step": step, "cycle": 1, "policy_version": step, "usd_total": 0.02 * step,
        "rollouts/sampled": 20 if step else 0,
        "rollouts/sampled_rl": 12 if step else 0, "rollouts/sampled_gepa": 8 if step else 0, "rollouts/reused": step,
        "rollouts/sampled_total": 20 * step, "rollouts/sampled_tokens": 200, "fast/usd": 0.02,
        "fast/reflection_calls": 2,
        "time/step_s": 10.0, "time/evolve_s": 2.0, "time/sample_s": 3.0, "time/update_s": 1.0, "time/evaluate_s": 4.0,
        "reward/mean": min(1.0, 0.1 * step) if step else None, "slow/entropy": 0.5 / (step + 1) if step else None,
    }  # fmt: skip
    if evaluate:
        line |= {
            "val/mean@4": min(1.0, 0.05 + 0.15 * step),
            "val/best@4": min(1.0, 0.2 + 0.15 * step),
            "kl/base": 0.01 * step,
            "kl/base_completion": 0.5 * step,
        }
    return line


def candidate(hash_: str, parent: str | None, components: Mapping[str, str], **more: Any) -> dict[str, Any]:
    line = {
        "id": 0, "hash": hash_, "parent": parent, "cycle": 1, "components": components, "accepted": True,
        "reason": "better",
        "mean": 0.5, "scores": {"p1": 1.0, "p2": 0.0}, "feedback": ["Sort them."],
    }  # fmt: skip
    return line | more


def sample(text: str = "an answer", **more: Any) -> dict[str, Any]:
    line = {
        "problem": "p1", "prompt": "bbbb", "text": text, "reward": 1.0, "feedback": "Correct.", "failure": None,
        "finish_reason": "stop", "source": "rl", "policy_version": 0,
    }  # fmt: skip
    return line | more


def episode(**more: Any) -> dict[str, Any]:
    """A kept rollout of two turns with a tool: one call fails, and the second turn is forked."""
    call = '<tool_call>{"name": "calculator", "arguments": {"expression": "2*"}}</tool_call>'
    turns = [
        {"messages": [], "text": f"I compute. {call}", "tokens": 9, "forked": False},
        {
            "messages": [{"role": "tool", "content": "The expression is not complete."}], "text": "It is 4.",
            "forked": True,
        },
    ]  # fmt: skip
    line = {
        **sample("It is 4."), "end": "done", "turns": turns, "said": [{"role": "user", "content": "Well done."}],
        "tool_calls": 1, "tool_errors": ["The expression is not complete."],
    }  # fmt: skip
    return line | more


CANDIDATES = (
    candidate(
        "aaaa", None, SEED, mean=0.0, scores={"p1": 0.0, "p2": 0.0}, feedback=[], reason="member of the population"
    ),
    candidate("bbbb", "aaaa", CHILD),
    candidate("cccc", "bbbb", GRANDCHILD, scores={"p1": 0.0, "p2": 1.0}),
    candidate("dddd", "bbbb", {"system": "Refused."}, accepted=False, reason="not better", mean=None, scores={}),
    candidate("dddd", "bbbb", {"system": "Refused."}, accepted=False, reason="not better", mean=None, scores={}),
)


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]], tail: str = "") -> None:
    """JSON lines in pure ASCII, so that even lone surrogates can be written; `tail` is a torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")


def make_run(
    path: Path,
    *,
    steps: int = 5,
    samples: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    candidates: Sequence[Mapping[str, Any]] = CANDIDATES,
    evaluate: bool = True,
    tail: str = "",
    **config: Any,
) -> Path:
    """Write a run directory."""
    tree = {
        "model": {"name": "org/model"},
        "task": {"name": "lab", "options": {"world": "amber"}},
        "output": str(path),
    } | config
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(config_text(parse_config(tree)), encoding="utf-8")
    write_lines(path / "metrics.jsonl", [metrics_line(step, evaluate=evaluate) for step in range(steps + 1)], tail)
    write_lines(path / "prompts.jsonl", candidates)
    members = [
        {"hash": "bbbb", "components": CHILD, "mean": 0.5},
        {"hash": "cccc", "components": GRANDCHILD, "mean": 0.5},
    ]
    (path / "population.json").write_text(json.dumps({"cycle": 1, "step": 1, "population": members}), encoding="utf-8")
    for step, lines in (samples if samples is not None else {1: [sample()]}).items():
        write_lines(path / "rollouts" / f"step_{step}.jsonl", lines)
    return path


def result_line(task: str, method: str, seed: int, accuracies: Sequence[float]) -> dict[str, Any]:
    """One line of an experiment's results."""
    curve = [
        {
            "step": 5 * at,
            "rollouts": 100 * at,
            "seconds": 2.0 * at,
            "val/mean@4": value,
            "val/best@4": value,
            "kl/base": 0.1 * at,
            "kl/base_completion": 3.0 * at,
        }
        for at, value in enumerate(accuracies)
    ]
    times = {"seconds": 6.0, "evolve_s": 1.0, "sample_s": 3.0, "update_s": 2.0, "evaluate_s": 1.0}
    return {
        "part": f"{task}-{method}-{seed}", "labels": {"task": task, "method": method, "seed": seed},
        "settings": {"method": method, "seed": seed}, "start": None, "interrupted": False, "curve": curve,
        "totals": {"steps": 15, "updates": 15, "sampled": 300, "sampled_gepa": 50, "reused": 10, **times},
        "prompt": f"Prompt {seed}", "measures": {"test": {"mean": accuracies[-1], "mean_interval": [0.1, 0.9]}},
    }  # fmt: skip
