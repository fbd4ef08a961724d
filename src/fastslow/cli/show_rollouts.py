"""What `fastslow prompts --rollouts` prints: what the model wrote, turn by turn. Model text is printed as text."""

from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.text import Text

from fastslow.errors import ConfigError
from fastslow.fast.transcript import ENDS
from fastslow.runs.files import SampleLine
from fastslow.runs.reader import Run
from fastslow.runs.transcripts import POLICY, Said, conversation, end_of
from fastslow.text import printable
from fastslow.types import EndReason

MARKS = {
    "forked": "a context of its own: the chat template renders what was said before in another way",
    "error": "the answer to a failed call",
    "cut": "cut off here",
}


def rollouts(path: Path, end: str | None) -> None:
    """The kept rollouts, newest step last; `end`: those that ended for this reason alone.

    Raises: ConfigError for a reason that there is not, and ResumeError where there is no run.
    """
    reasons = get_args(EndReason)
    if end is not None and end not in reasons:
        raise ConfigError(f"end: {end!r} is no reason why rollouts end: take one of {', '.join(reasons)}")
    run, console = Run(path), Console()
    _ = run.config
    lines = [(step, line) for step, kept in run.samples.items() for line in kept]
    chosen = [(step, line) for step, line in lines if end in (None, end_of(line))]
    for step, line in chosen:
        _print(console, step, line)
    console.print(Text(f"{len(chosen)} of {len(lines)} kept rollouts."))
    if not lines:
        console.print("rollout_samples in the config says how many are kept a step.", markup=False)


def _print(console: Console, step: int, line: SampleLine) -> None:
    reward = line.get("reward")
    verdict = "not scored" if reward is None else f"reward {reward:.3f}"
    problem = printable(str(line.get("problem")))
    console.print(Text(f"step {step}  {problem}  prompt {line.get('prompt')}  {verdict}", style="bold"))
    for message in line.get("question", ()):
        _block(console, f"{message['role']} asks" if message["role"] == "user" else message["role"], message["content"])
    if line.get("reference"):
        _block(console, "reference answer", line["reference"])
    said = conversation(line) or [Said(POLICY, line["text"])]
    for one in said:
        note = f" ({MARKS[one.mark]})" if one.mark else ""
        _block(console, f"{one.speaker}{note}", one.text, style="cyan" if one.speaker == POLICY else "dim")
        for call in one.calls:
            console.print(Text(f"    -> {printable(call)}", style="magenta"))
    console.print(Text(f"  {_ending(line)}"))
    words = line.get("failure") or line.get("feedback") or ""
    for row in printable(words).splitlines():
        console.print(Text(f"    {row}", style="dim"))
    console.print()


def _block(console: Console, name: str, text: str, style: str = "dim") -> None:
    console.print(Text(f"  {printable(name)}:", style=style))
    for row in printable(text).splitlines() or ["(empty)"]:
        console.print(Text(f"    {row}"))


def _ending(line: SampleLine) -> str:
    turns, calls = line.get("turns"), line.get("tool_calls", 0)
    reasons = {str(reason): words for reason, words in ENDS.items()}
    if turns is None:
        return "cut off: the answer was too long" if end_of(line) == "turn_tokens" else "it ended by itself"
    errors = len(line.get("tool_errors") or ())
    tools = f"; tool calls: {calls}, failed: {errors}" if calls else ""
    return f"{reasons.get(end_of(line), end_of(line))}, after {len(turns)} turns{tools}"
