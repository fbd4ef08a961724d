"""`fastslow init DIR --data FILE`."""

import argparse
from pathlib import Path

from fastslow.text import printable

MODEL = "Qwen/Qwen3-0.6B"


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow init`."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="where config.yaml, scorer.py and README.md go")
    parser.add_argument(
        "--data",
        required=True,
        help=".jsonl, .json, .csv, .tsv (all also .gz) or .parquet, what save_to_disk wrote, or a hub id",
    )
    parser.add_argument("--subset", help="of a hub id that has several")
    parser.add_argument("--prompt", metavar="COLUMN", help="the column with the question (default: a guess)")
    parser.add_argument("--answer", metavar="COLUMN", help="the column with the answer (default: a guess)")
    parser.add_argument("--model", default=MODEL, help=f"what is trained (default: {MODEL})")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from fastslow.starter.look import look
    from fastslow.starter.write import write_starter

    found = look(options.data, options.subset, prompt=options.prompt, answer=options.answer)
    config, *others = write_starter(options.directory, found, model=options.model, subset=options.subset)
    sizes = ", ".join(f"{name} {size}" for name, size in found.sizes.items())
    print(printable(f"{found.source}: {sizes} records; columns {', '.join(found.columns)}"))
    print(printable(f"question: {found.prompt}; answer: {found.answer or 'none'}; {found.why}"))
    print(f"scorer: {found.scorer or f'{others[0]}:score, to be filled in'}")
    print(f"wrote {config}, {', '.join(map(str, others))}\n\nGo on with:\n\n    fastslow train {config} --dry-run")
    return 0
