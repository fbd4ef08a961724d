"""What a reflection LM was asked and said, as a line of `reflections.jsonl`."""

from fastslow.fast.optimiser import Reflection
from fastslow.runs.files import ReflectionLine


def reflection_line(cycle: int, reflection: Reflection) -> ReflectionLine:
    """The line of one question. Its texts are as long as `fast.proposer.log_chars` lets them be."""
    usage = reflection.usage
    return {
        "cycle": cycle,
        "parent": reflection.parent,
        "component": reflection.component,
        "child": reflection.child,
        "outcome": reflection.outcome,
        "reason": reflection.reason,
        "request": reflection.request,
        "diagnosis": reflection.diagnosis,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "usd": usage.usd,
    }
