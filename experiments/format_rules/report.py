"""Tables and plots of the format-rule experiment, from `results/runs.jsonl` alone:
`results/README.md` and its pictures.

    python experiments/format_rules/report.py

Runs with another learning rate than the config's have a table of their own. Seconds are training seconds: sampling,
search and updates, without the evaluations that draw the curves.
"""

from collections.abc import Sequence
from pathlib import Path

from fastslow.experiments.plots import ACCURACY, KL, ROLLOUTS, SECONDS, draw
from fastslow.experiments.records import Line
from fastslow.experiments.tables import NAMES, by_method, curves, select
from fastslow.measuring.statistics import accuracy, kl, reached
from fastslow.runs.files import read_lines
from fastslow.text import markdown_table, wrapped

RESULTS = Path(__file__).parent / "results"
TASKS = {
    "json": "zero floor: bare JSON, which the base model never writes under the seed prompt",
    "boxed": "low floor: \\boxed{}, which the base model writes now and then",
}
RATE, TRIED = 5e-5, "slow.learning_rate"
LEVELS = (0.3, 0.5, 0.6)
ABOUT = (
    "Made by `report.py`; see the README beside it for what was run. Of validation accuracy, mean@4, the "
    "tables have the first and the last evaluation; `to 0.3` is what it took to reach 0.3, in sampled rollouts "
    "and training seconds."
)
TEST = (
    "Test split, after training. Brackets are 95 % intervals over problems. Those of the KL are the percentile "
    "bootstrap's. Those of the rewards are made from the standard error that the stored evaluations tell. KL in nats a "
    "token, then in nats a completion, and the tokens of a completion."
)


def training(lines: Sequence[Line]) -> list[str]:
    """What each run took, and where it ended."""
    header = ["method", "seed", "RL steps", "sampled (search)", "reused", "seconds", "mean@4"]
    rows = []
    for line in lines:
        totals, curve = line["totals"], line["curve"]
        there = [reached(curve, level) for level in LEVELS]
        rows.append(
            [
                *of(line),
                f"{totals['updates']}",
                f"{totals['sampled']} ({totals['sampled_gepa']})",
                f"{totals['reused']}",
                f"{totals['seconds']:.0f}",
                f"{accuracy(curve[0]):.3f}, {accuracy(curve[-1]):.3f}",
                *("never" if point is None else f"{point.rollouts} / {point.seconds:.0f} s" for point in there),
                f"{kl(curve[-1]):.3f}",
            ]
        )
    return markdown_table([*header, *(f"to {level}" for level in LEVELS), "last KL"], rows)


def tested(lines: Sequence[Line]) -> list[str]:
    """Every measurement on the test split."""
    rows = []
    for line in lines:
        for name, row in sorted(line["measures"].items()):
            found = row.get("kl")
            drift = "-" if found is None else f"{found['mean']:.3f} {bracket(found['interval'])}"
            mean = f"{row['mean']:.3f} {bracket(row['mean_interval'])}"
            best = f"{row['best']:.3f} {bracket(row['best_interval'])}"
            # One completion a problem.
            whole = "-" if found is None else f"{found['mean'] * found['tokens'] / row['problems']:.1f}"
            tokens = "-" if found is None else f"{found['tokens'] / row['problems']:.1f}"
            what = name.replace(" weights", "").replace(" prompt", "")
            rows.append([" ".join(of(line)), what, mean, best, drift, whole, tokens])
    header = ["run, seed", "weights, prompt", "mean@4", "best@4", "KL to base", "a completion", "tokens"]
    return [*wrapped([TEST]), "", *markdown_table(header, rows)] if rows else []


def learning_rates(lines: Sequence[Line]) -> list[str]:
    """FST under the learning rates that were tried, evaluation after evaluation."""
    tried = {(line["labels"]["task"], line["labels"]["seed"]) for line in lines if TRIED in line["settings"]}
    rows = []
    for line in sorted(lines, key=lambda line: (line["labels"]["task"], TRIED not in line["settings"])):
        labels = line["labels"]
        if labels["method"] == "fst" and (labels["task"], labels["seed"]) in tried:
            columns = zip(*((f"{accuracy(p):.2f}", f"{kl(p):.2f}", str(p["step"])) for p in line["curve"]), strict=True)
            rate = f"{line['settings'].get(TRIED, RATE):.0e}".replace("e-0", "e-")
            rows.append([str(labels["task"]), str(labels["seed"]), rate, *(", ".join(column) for column in columns)])
    header = ["task", "seed", "learning rate", "mean@4", "KL", "at steps"]
    return ["## The learning rate that was too high", "", *markdown_table(header, rows)] if rows else []


def of(line: Line) -> tuple[str, str]:
    """Method and seed of a run."""
    return NAMES[str(line["labels"]["method"])], str(line["labels"]["seed"])


def bracket(bounds: Sequence[float]) -> str:
    """An interval, in brackets."""
    return f"({bounds[0]:.3f} to {bounds[1]:.3f})"


def page(lines: Sequence[Line]) -> list[str]:
    """The results page; draws its pictures on the way."""
    text = ["# Results", "", *wrapped([ABOUT]), ""]
    for task, title in TASKS.items():
        mine = [line for line in select(lines, task=task) if TRIED not in line["settings"]]
        if mine:
            series = {NAMES[method]: curves(runs) for method, runs in by_method(mine).items()}
            draw(series, [(ROLLOUTS, ACCURACY), (SECONDS, ACCURACY), (ROLLOUTS, KL)], title, RESULTS / f"{task}.png")
            text += [f"## {task}: {title}", "", f"![curves]({task}.png)", "", *training(mine), *tested(mine)]
    return [*text, *learning_rates(lines)]


def main() -> None:
    text = "\n".join(page(read_lines(RESULTS / "runs.jsonl"))).rstrip() + "\n"
    (RESULTS / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
