"""FST, RL alone and GEPA alone on a real language model, from the same seeds and budget of sampled rollouts.

    python experiments/format_rules/run.py --model DIR [--tasks ...] [--methods ...] [--seeds ...] [--test]

Runs what `results/runs.jsonl` has no line of, and goes on with a run that was cut. What a run leaves (metrics, prompts,
config, samples of rollouts; no weights) is copied to `results/`. With `--test` weights and prompts are measured on the
test split, which nothing before has seen, as soon as a run ends. `report.py` makes the tables and the plots from there.
"""

import argparse
import shutil
from pathlib import Path

import yaml

from fastslow.experiments.designs import compare
from fastslow.experiments.parts import Experiment, Measure
from fastslow.experiments.runner import run_experiment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TASKS = ("json", "boxed")
# A step of prompt evolution alone is a whole cycle, so its curve needs a point more often.
METHODS: dict[str, dict[str, object]] = {"fst": {}, "rl": {}, "prompt": {"evaluation.every": 3}}
MEASURES = {
    "fst": (
        Measure("trained weights, best prompt", prompt="best", kl=True),
        Measure("trained weights, seed prompt", prompt="seed"),
        Measure("base weights, best prompt", prompt="best", weights="base"),
        Measure("base weights, seed prompt", prompt="seed", weights="base"),
    ),
    "rl": (Measure("trained weights, seed prompt", prompt="seed", kl=True),),
    "prompt": (Measure("base weights, best prompt", prompt="best", weights="base"),),
}
KEPT = ("config.yaml", "metrics.jsonl", "prompts.jsonl", "population.json")


def experiment(tasks: list[str], methods: list[str], seeds: list[int], model: str, *, test: bool) -> Experiment:
    """Every method on every task from the same seeds."""
    base = yaml.safe_load((HERE / "json.yaml").read_text(encoding="utf-8"))
    base["model"]["name"] = model
    parts = []
    for method in methods:
        measures = dict.fromkeys(tasks, MEASURES[method] if test else ())
        formats = {task: {"task.options.answer_format": task} for task in tasks}
        parts += compare(formats, seeds, {method: METHODS[method]}, measures)
    return Experiment("format_rules", base, tuple(parts))


def keep_record(run: Path) -> None:
    """Copy what a reader of the results wants to see of a run."""
    kept = RESULTS / run.name
    kept.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, kept / name)
    samples = sorted((run / "rollouts").glob("step_*.jsonl"), key=lambda path: int(path.stem.split("_")[1]))
    for path in {samples[0], samples[-1]} if samples else set():
        shutil.copy(path, kept / f"rollouts_{path.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory of Qwen2.5-Coder-0.5B-Instruct")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--workers", type=int, default=2, help="runs side by side")
    parser.add_argument("--output", type=Path, default=Path("runs/format_rules"))
    parser.add_argument("--test", action="store_true", help="measure each run on the test split as well")
    options = parser.parse_args()
    planned = experiment(options.tasks, options.methods, options.seeds, options.model, test=options.test)
    run_experiment(planned, options.output, workers=options.workers, results=RESULTS / "runs.jsonl")
    for part in planned.parts:
        if (options.output / part.name).is_dir():
            keep_record(options.output / part.name)


if __name__ == "__main__":
    main()
