"""What a reflection LM is asked: a template whose fields are the parent's text, what the policy did under it,
and how far the child may go from it.

The built-in wording asks for what gepa's own template asks for (`gepa/strategies/instruction_proposal.py`, arXiv
2507.19457): the task and its input format, facts of the domain, and strategies that generalise. A template of
somebody's own is a file with the same fields, written as {{name}}.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.fast.proposers.base import Attempt, ProposalRequest
from fastslow.fast.proposers.clipping import clip, examples_text
from fastslow.fast.proposers.settings import ReflectionConfig
from fastslow.resources import resolve_path
from fastslow.text import shown
from fastslow.types import Message

OPEN, CLOSE = "<new_prompt>", "</new_prompt>"
OTHER_PART_CHARS, ATTEMPT_CHARS = 1000, 800
MOST_TEMPLATE_BYTES = 10**6

RECIPES: Mapping[str, str] = {
    "light": (
        "Edit the current text lightly. Find the mistake that most of the failures share, and make the one small "
        "change that would have prevented it: add a rule, sharpen one, correct one, or take out one that does harm. "
        "Keep every other line exactly as it is, because the policy has been trained under it."
    ),
    "full": (
        "Write the best text that you can. You may keep, reorder or replace anything, and start from scratch where the "
        "current text points the wrong way. Keep what the good answers show to be working."
    ),
}

FIELDS: Mapping[str, str] = {
    "component": "the name of the text that is to be changed, and what it is",
    "current_prompt": "its current text",
    "other_parts": "the prompt's other texts; empty where there are none",
    "background": "`fast.proposer.background`",
    "examples": "question, answer, reward and feedback of each rollout, the worst first",
    "recipe": "how far the change may go: the words of `fast.proposer.recipe`",
    "refused_attempts": "edits of this text that the search refused; see `fast.proposer.refused_attempts`",
    "limit": "the length that the new text may have",
    "answer_format": f"what the reply must look like: the new text between {OPEN} and {CLOSE}",
}
"""The fields of a template, by name."""

TEMPLATE = """\
A language model solves problems under a prompt. You improve the part of that prompt named {{component}}.

{{background}}

Its current text:
<current_prompt>
{{current_prompt}}
</current_prompt>

{{other_parts}}

What the model did under it:

{{examples}}

Read all of it before you write, and look for four things. The task: what is asked, and in which form the input comes. \
Facts of the domain that the feedback gives away and that the model will not have next time. A strategy behind the \
good answers that carries over to other problems. What the failures have in common. What of this the current text \
lacks, it should say.

{{refused_attempts}}

Your task: {{recipe}}

Write for problems that are not shown here: name rules, facts, formats and methods, never the answer of one problem \
above. Where the feedback asks for a format, state it exactly. {{limit}}

{{answer_format}}
"""

_FIELD = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


@dataclass(frozen=True)
class Wording:
    """How a reflection LM is asked. `example_chars`: the most of one example, in characters; None:
    its share of them all.

    `background`, `references` and `attempts` are what a config adds: a text, whether examples show their reference
    answers, and how many refused edits are shown.
    """

    recipe: str = "light"
    max_prompt_chars: int = 16000
    template: str = TEMPLATE
    background: str = ""
    example_chars: int | None = None
    references: bool = False
    attempts: int = 0

    @classmethod
    def of(cls, config: ReflectionConfig) -> "Wording":
        """The wording of a config. Raises ConfigError for a template that cannot be used."""
        template = TEMPLATE if config.template is None else read_template(config)
        return cls(
            config.recipe,
            config.max_prompt_chars,
            template,
            (config.background or "").strip(),
            config.example_chars,
            config.reference_answers,
            config.refused_attempts,
        )


def read_template(config: ReflectionConfig) -> str:
    """The template of a config. Raises ConfigError, which names every field that is unknown or missing."""
    field, name = "fast.proposer.template", str(config.template)
    path = Path(resolve_path(name, field))
    try:
        if path.stat().st_size > MOST_TEMPLATE_BYTES:
            raise ConfigError(f"{field}: {name!r} has more than {MOST_TEMPLATE_BYTES} bytes: no template is that long")
        template = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{field}: {name!r} cannot be read: {error}. Give the path of a text file") from error
    found = _FIELD.findall(template)
    unknown = [each for each in dict.fromkeys(found) if each not in FIELDS]
    if unknown:
        raise ConfigError(
            f"{field}: {name!r} has unknown fields: {', '.join(map(shown, unknown))}. Known: {', '.join(FIELDS)}"
        )
    missing = [each for each in _needed(config, template) if each not in found]
    if missing:
        raise ConfigError(
            f"{field}: {name!r} lacks {', '.join('{{' + each + '}}' for each in missing)}: write "
            f"{'it' if len(missing) == 1 else 'them'} where the text belongs"
        )
    return template


def _needed(config: ReflectionConfig, template: str) -> list[str]:
    """The fields that a template must have; a reply's form may also be asked for in its own words."""
    needed = ["current_prompt", "examples"]
    needed += [] if OPEN in template and CLOSE in template else ["answer_format"]
    needed += ["background"] * bool(config.background) + ["refused_attempts"] * bool(config.refused_attempts)
    return needed


def render_messages(request: ProposalRequest, wording: Wording, request_chars: int) -> list[Message]:
    """The chat messages of one request; all examples together take about `request_chars` characters."""
    values = {
        "component": f"{request.component!r}{_meaning(request.component)}",
        "current_prompt": request.parent.as_dict()[request.component],
        "other_parts": _other_parts(request),
        "background": f"What is known of the task:\n{wording.background}" if wording.background else "",
        "examples": examples_text(request.examples, request_chars, wording.example_chars, wording.references),
        "recipe": RECIPES[wording.recipe],
        "refused_attempts": _attempts(request.attempts[-wording.attempts :] if wording.attempts else ()),
        "limit": _limit(request, wording.max_prompt_chars),
        "answer_format": (
            "First say in one or two sentences what goes wrong and why. Then give the complete new text, not only the "
            f"change, between {OPEN} and {CLOSE}, and nothing after it."
        ),
    }
    return [{"role": "user", "content": _fill(wording.template, values)}]


def _fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields filled. A paragraph that is one field, and has nothing in it, goes."""
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n", template.replace("\r\n", "\n").strip("\n")):
        alone = _FIELD.fullmatch(paragraph.strip())
        if alone is None or values[alone[1]]:
            # One pass: what a model wrote may hold such marks itself, and they mean nothing there.
            paragraphs.append(_FIELD.sub(lambda match: values[match[1]], paragraph))
    return "\n\n".join(paragraphs)


def _meaning(component: str) -> str:
    """What a component is, where its name says it."""
    kind, _, name = component.partition(":")
    meanings = {
        "tool": f": the description of the tool {name!r}, which the model reads beside the tool's arguments",
        "skill": f": a skill, a text that the model reads under the heading {name!r} when it works",
    }
    return meanings.get(kind, "") if name else ""


def _limit(request: ProposalRequest, max_prompt_chars: int) -> str:
    """The length that a new text may have: what the config allows, or what the policy's context holds, if less."""
    room = request.max_chars
    if room is None or room >= max_prompt_chars:
        return f"The whole text has at most {max_prompt_chars} characters."
    now = len(request.parent.as_dict()[request.component])
    return (
        f"The whole text has at most {room} characters (the current one has {now}): the model reads it together with "
        "the question and its own answer, and no more fits. A longer text is refused."
    )


def _other_parts(request: ProposalRequest) -> str:
    others = [(name, text) for name, text in request.parent.components if name != request.component]
    if not others:
        return ""
    texts = "\n\n".join(f"<part name={name!r}>\n{clip(text, OTHER_PART_CHARS)}\n</part>" for name, text in others)
    return f"The prompt's other parts, which stay as they are:\n{texts}"


def _attempts(attempts: Sequence[Attempt]) -> str:
    if not attempts:
        return ""
    texts = "\n".join(
        f"<attempt>\n{clip(attempt.change, ATTEMPT_CHARS)}\nRefused: {clip(attempt.reason, ATTEMPT_CHARS)}\n</attempt>"
        for attempt in attempts
    )
    return (
        "These changes to the current text were tried in this search and refused. Lines with + were added, lines with "
        f"- taken out. Propose something else:\n{texts}"
    )
