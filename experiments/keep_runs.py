"""Keeps the records of runs beside their results: config, metrics, every prompt proposed,
and the answer of an evaluation.

    python experiments/keep_runs.py runs/agents/local experiments/agents/results/local --evaluation FILE
    python experiments/keep_runs.py runs/real_model/json experiments/real_model/results/json

The first argument is a run, or a directory of runs. The second directory gets `runs.zip`, with a folder for each
run. Of a single run it also gets `curve.md`: a row for each evaluation, with the mean training reward of the
steps since the one before.
"""

import argparse
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastslow.runs.files import is_run, read_lines

KEPT = ("config.yaml", "metrics.jsonl", "prompts.jsonl", "population.json")
TIME = (2000, 1, 1, 0, 0, 0)
"""Of every file in the archive: the same runs give the same archive."""
COLUMNS = {
    "step": "step",
    "rollouts/sampled_total": "sampled rollouts",
    "accuracy": "accuracy",
    "under_seed": "under the seed prompt",
    "kl/base": "KL",
    "reward": "training reward",
    "turns": "turns",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a run, or a directory of runs")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--evaluation", type=Path, help="what fastslow evaluate --json wrote")
    options = parser.parse_args()
    found = [options.runs] if is_run(options.runs) else sorted(each for each in options.runs.iterdir() if is_run(each))
    if not found:
        sys.exit(f"{options.runs} is no run, and has none in it")
    options.destination.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(options.destination / "runs.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for run in found:
            for name in KEPT:
                if (run / name).is_file():
                    entry = zipfile.ZipInfo(f"{run.name}/{name}", TIME)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, (run / name).read_bytes())
    if len(found) == 1 and found[0] == options.runs:
        (options.destination / "curve.md").write_text(table(rows(found[0])))
    if options.evaluation:
        shutil.copy(options.evaluation, options.destination / "evaluation.json")


def rows(run: Path) -> Iterator[Mapping[str, Any]]:
    """One for each evaluation, by the keys of COLUMNS."""
    rewards: list[float] = []
    turns: list[float] = []
    for line in read_lines(run / "metrics.jsonl"):
        rewards += [line["reward/mean"]] if line.get("reward/mean") is not None else []
        turns += [line["episodes/turns"]] if line.get("episodes/turns") is not None else []
        accuracy = next((line[key] for key in line if key.startswith("val/mean@")), None)
        if accuracy is not None:
            seed = next((line[key] for key in line if key.startswith("val/seed_prompt/mean@")), None)
            means = {"reward": _mean(rewards), "turns": _mean(turns)}
            yield {**line, "accuracy": accuracy, "under_seed": seed, **means}
            rewards, turns = [], []


def table(found: Iterator[Mapping[str, Any]]) -> str:
    """Markdown; columns that no row has are left out."""
    lines = list(found)
    keys = [key for key in COLUMNS if any(line.get(key) is not None for line in lines)]
    head = [" | ".join(COLUMNS[key] for key in keys), " | ".join("---" for _ in keys)]
    body = [" | ".join(_cell(line.get(key)) for key in keys) for line in lines]
    return "".join(f"| {row} |\n" for row in (*head, *body))


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    main()
