"""What `fastslow prompts --rollouts` prints: what the model wrote, turn by turn. Model text is printed as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.text import Text

from fastslow.errors import ConfigError
from fastslow.fast.transcript import ENDS
from fastslow.runs.files import SampleLine, sample_files, step_of
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
    chosen = found = 0
    for file in sample_files(path):
        lines = run.samples_of(file)
        for line in lines:
            if end in (None, end_of(line)):
                chosen += 1
                console.print(Text("\n").join(_described(step_of(file), line)))
        found += len(lines)
    console.print(Text(f"{chosen} of {found} kept rollouts."))
    if not found:
        console.print("rollout_samples in the config says how many are kept a step.", markup=False)


def _described(step: int, line: SampleLine) -> Iterator[Text]:
    """The lines that a kept rollout is told in."""
    reward = line.get("reward")
    verdict = "not scored" if reward is None else f"reward {reward:.3f}"
    problem, prompt = (printable(str(line.get(name))) for name in ("problem", "prompt"))
    yield Text(f"step {step}  {problem}  prompt {prompt}  {verdict}", style="bold")
    for message in line.get("question", ()):
        name = f"{message['role']} asks" if message["role"] == "user" else message["role"]
        yield from _block(name, message["content"])
    if line.get("reference"):
        yield from _block("reference answer", line["reference"])
    said = conversation(line) or [Said(POLICY, line["text"])]
    for one in said:
        note = f" ({MARKS[one.mark]})" if one.mark else ""
        yield from _block(f"{one.speaker}{note}", one.text, style="cyan" if one.speaker == POLICY else "dim")
        for call in one.calls:
            yield Text(f"    -> {printable(call)}", style="magenta")
    yield Text(f"  {_ending(line)}")
    words = line.get("failure") or line.get("feedback") or ""
    for row in printable(words).splitlines():
        yield Text(f"    {row}", style="dim")
    yield Text("")


def _block(name: str, text: str, style: str = "dim") -> Iterator[Text]:
    yield Text(f"  {printable(name)}:", style=style)
    for row in printable(text).splitlines() or ["(empty)"]:
        yield Text(f"    {row}")


def _ending(line: SampleLine) -> str:
    turns, calls = line.get("turns"), line.get("tool_calls", 0)
    reasons = {str(reason): words for reason, words in ENDS.items()}
    if turns is None:
        return "cut off: the answer was too long" if end_of(line) == "turn_tokens" else "it ended by itself"
    errors = len(line.get("tool_errors") or ())
    tools = f"; tool calls: {calls}, failed: {errors}" if calls else ""
    return f"{reasons.get(end_of(line), printable(end_of(line)))}, after {len(turns)} turns{tools}"
