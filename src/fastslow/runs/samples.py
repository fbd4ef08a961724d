"""A rollout as a line that people read: the question, the prompt's text, what the policy wrote, and its reward."""

from collections.abc import Callable, Mapping

from fastslow.types import Problem, Prompt, Rollout

Told = Callable[[Rollout], Mapping[str, object]]
"""What a line says besides its rollout: see `context_of`."""


def sample_line(rollout: Rollout, told: Mapping[str, object] | None = None) -> dict[str, object]:
    """A line of rollouts/step_N.jsonl, and of what `fastslow evaluate --save` writes."""
    return {
        "problem": rollout.problem_id,
        "prompt": rollout.prompt_hash,
        **(told or {}),
        "text": rollout.text,
        "reward": rollout.reward,
        "feedback": rollout.feedback,
        "failure": rollout.failure,
        "finish_reason": rollout.finish_reason,
        "source": rollout.source,
        "policy_version": rollout.policy_version,
        **transcript(rollout),
    }


def context_of(problem: Problem | None, reference: str | None, prompt: Prompt | None) -> dict[str, object]:
    """What one needs beside a completion: its question, the right answer where the task tells it, the prompt's text."""
    told: dict[str, object] = {}
    if problem is not None:
        told["question"] = [{"role": str(m["role"]), "content": str(m["content"])} for m in problem.messages]
    if reference is not None:
        told["reference"] = reference
    if prompt is not None:
        told["components"] = prompt.as_dict()
    return told


def transcript(rollout: Rollout) -> dict[str, object]:
    """What a line has more for an episode of several turns: who said what, and why it ended."""
    trace = rollout.trace
    if trace is None:
        return {}
    turns = [
        {
            "messages": [dict(message) for message in turn.messages],
            "text": turn.text,
            "tokens": len(turn.completion.tokens),
            "forked": forked,
        }
        for turn, forked in zip(rollout.turns, rollout.forked, strict=True)
    ]
    return {
        "end": trace.end,
        "turns": turns,
        "said": [dict(message) for message in trace.said],
        "tool_calls": trace.tool_calls,
        "tool_errors": list(trace.tool_errors),
    }
