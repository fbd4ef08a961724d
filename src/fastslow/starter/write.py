"""The files of `fastslow init`: config.yaml, scorer.py and README.md."""

import json
from pathlib import Path
from textwrap import fill

from fastslow.errors import ConfigError
from fastslow.resources import resolve_path
from fastslow.runs.directory import write_atomically
from fastslow.starter.look import Look
from fastslow.tasks.sources import REST, is_file_name
from fastslow.text import markdown_table, printable, shortened

CONFIG, SCORER, README = "config.yaml", "scorer.py", "README.md"
COMPLETION_TOKENS = 512
FEW = 192
"""With fewer problems than a cycle looks ahead at, steps are smaller."""
MOST_VALIDATED = 100


def write_starter(directory: Path, look: Look, *, model: str, subset: str | None = None) -> list[Path]:
    """Write the three files; their paths. Raises ConfigError where one of them is there already."""
    paths = [directory / name for name in (CONFIG, SCORER, README)]
    for path in paths:
        if path.exists():
            raise ConfigError(f"{str(path)!r} is there already: take another directory, or move it away")
    directory.mkdir(parents=True, exist_ok=True)
    texts = (config_text(directory, look, model, subset), scorer_text(look), readme_text(directory, look))
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text)
    return paths


def config_text(directory: Path, look: Look, model: str, subset: str | None = None) -> str:
    """A config that names the data, the columns and the scorer, with what else one may want to set, and why."""
    own = f"{(directory / SCORER).resolve()}:score"
    source = str(Path(look.source).resolve()) if Path(look.source).exists() else look.source
    options: list[tuple[str, object, str]] = [("data", source, "")]
    if subset is not None:
        options.append(("subset", subset, ""))
    options.append(("splits", look.splits, _about_splits(look)))
    options.append(("prompt", look.prompt, "the column with the question"))
    if look.answer is not None:
        options.append(("answer", look.answer, "the column with the right answer"))
    if look.choices is not None:
        options.append(("choices", look.choices, "the column with the options"))
    options.append(("scorer", look.scorer or own, look.why))
    if look.repeated:
        options.append(("drop_duplicates", True, f"{look.repeated} questions stand more than once"))
    if look.broken:
        options.append(("skip_broken", True, f"{look.broken} records lack a question or an answer"))
    lines = [f"    {key}: {_value(value)}{f'  # {why}' if why else ''}" for key, value, why in options]
    if look.scorer is not None:
        lines.append(f"    # A scorer of your own, with feedback in words:  scorer: {_value(own)}")
    small = _problems(look, "train") < FEW
    return "\n".join(
        [
            "# Written by `fastslow init`. Every key is described in docs/config.md; --dry-run "
            "explains what it comes to.",
            "model:",
            f"  name: {_value(model)}",
            "task:",
            "  name: records",
            "  options:",
            *lines,
            f"output: {_value(f'runs/{directory.resolve().name}')}",
            "steps: 50",
            "sampling:",
            f"  max_tokens: {_completion_tokens(model)}  # of an answer; a model that thinks wants more",
            "loop:",
            f"  problems_per_step: {8 if small else 32}",
            "fast:",
            *(["  anchor_problems: 48", "  metric_calls: 240"] if small else ["  anchor_problems: 192"]),
            "  # Prompts grow by what the scorer says. A language model that reflects does better:",
            "  # proposer: {kind: openai, model: NAME, base_url: 'http://localhost:8000/v1'}",
            "evaluation:",
            "  every: 10",
            f"  problems: {min(MOST_VALIDATED, _problems(look, 'validation'))}",
            "",
        ]
    )


def scorer_text(look: Look) -> str:
    """A scorer to fill in: it takes the record, and gives a reward and words."""
    answer = look.answer
    # Within the quotes of a docstring, whatever the names of columns are.
    columns = printable(", ".join(look.columns)).replace("\\", "\\\\").replace('"', '\\"')
    judged = (
        f'''    right = str(record[{answer!r}]).strip()
    if right in completion:
        return 1.0, "Correct."'''
        if answer is not None
        else """    if completion.strip():  # what is a good answer? say it here
        return 1.0, "Correct.\""""
    )
    return f'''"""Scores an answer.

config.yaml names it as task.options.scorer: {SCORER}:score, with the path of this file.
"""


def score(completion, record):
    """A reward from 0 to 1, and feedback. `record` is a row of the data: {columns}.

    The prompt search reads the feedback, one finding a line. A rule that holds for every problem, in the same
    words each time, can become a line of the prompt. What is about one problem helps a language model that reflects.
    """
{judged}
    return 0.0, "Give the answer that was asked for, and nothing else."
'''


def readme_text(directory: Path, look: Look) -> str:
    """What was found, and the commands that go on from here."""
    sizes = ", ".join(f"{name} {size}" for name, size in look.sizes.items())
    found = [
        ["data", f"`{look.source}`: {sizes}"],
        ["columns", ", ".join(f"`{name}`" for name in look.columns)],
        ["question", f"`{look.prompt}`"],
        ["answer", f"`{look.answer}`" if look.answer else "none"],
        ["scorer", f"`{look.scorer or SCORER + ':score'}`: {look.why}"],
        ["splits", ", ".join(f"{split}: {size}" for split, size in look.splits.items())],
    ]
    example = printable(shortened(json.dumps(look.example, ensure_ascii=False, default=str), 600)).replace("`", "'")
    config = directory / CONFIG
    return "\n".join(
        [
            f"# {directory.resolve().name}",
            "",
            "Written by `fastslow init` after a look at the data. What it guessed, `config.yaml` says in plain words.",
            "",
            *markdown_table(["what", "found"], [[name, printable(text)] for name, text in found]),
            "The first record:",
            "",
            "```json",
            example,
            "```",
            "",
            "## Go on",
            "",
            "```",
            f"fastslow train {config} --dry-run",
            f"fastslow train {config}",
            f"fastslow report runs/{directory.resolve().name}",
            "```",
            "",
            fill(
                f"`{SCORER}` is a scorer to fill in. The prompt search learns from its words: say what was wrong as a "
                "rule that holds for every problem.",
                118,
            ),
            "",
        ]
    )


def _value(value: object) -> str:
    """A value in one line of YAML. What JSON leaves and YAML does not take, such as a C1 control, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _about_splits(look: Look) -> str:
    if len(look.sizes) > 1:
        return "the dataset's own"
    where = "file" if is_file_name(look.source) else "dataset"
    return f"cut from the one {where} of {next(iter(look.sizes.values()))} records, in the order of a hash"


def _problems(look: Look, split: str) -> int:
    """How many problems a split has, divided as the config divides the data."""
    part = look.splits.get(split, 0)
    if isinstance(part, int):
        return part
    if part == REST:
        held_out = sum(size for size in look.splits.values() if isinstance(size, int))
        size = look.sizes.get("train", next(iter(look.sizes.values())))
        return size - look.repeated - look.broken - held_out
    name, _, span = part.partition("[")
    first, _, last = span.rstrip("]").partition(":")
    return int(last or look.sizes[name]) - int(first or 0)


def _completion_tokens(model: str) -> int:
    """Half of a small model's context, where it lies on this machine; otherwise the usual."""
    from fastslow.slow.local.loading import context_limit, load_text_config
    from fastslow.slow.settings import ModelConfig

    try:
        here = Path(resolve_path(model, "--model")).exists()
        limit = context_limit(load_text_config(ModelConfig(name=model))) if here else None
    except ConfigError:
        return COMPLETION_TOKENS
    return COMPLETION_TOKENS if limit is None else min(COMPLETION_TOKENS, limit // 2)
