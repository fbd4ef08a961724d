"""FST, RL alone and GEPA alone on a real language model, from the same seeds and budget of sampled rollouts.

    python experiments/format_rules/run.py --model DIR [--tasks json boxed] [--methods fst rl prompt] [--seeds 0]

Each run is `fastslow train` on one of the configs beside this file; a run that was cut is resumed. What a run leaves
(metrics, prompts, config, samples of rollouts; no weights) is copied to `results/` as soon as it ends. With `--test` its
weights and prompts are then measured on the test split, which nothing before has seen. `report.py` makes the tables and the
plots from there.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# A step of prompt evolution alone is a whole cycle, so its curve needs a point more often.
METHOD_SETTINGS = {"prompt": {"evaluation.every": 3}}
# What is measured on the test split: weights and prompt, and whether the KL to the base is measured too.
TESTED = {
    "fst": [("latest", "best", True), ("latest", "seed", False), ("base", "best", False), ("base", "seed", False)],
    "rl": [("latest", "seed", True)],
    "prompt": [("base", "best", False)],
}
KEPT = ("config.yaml", "metrics.jsonl", "prompts.jsonl", "population.json")


def run_one(task: str, method: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one run, or go on with it, and keep its record."""
    output = arguments.output / f"{task}-{method}-{seed}"
    command = [sys.executable, "-m", "fastslow", "train"]
    if (output / "config.yaml").exists():
        command += ["--resume", str(output)]
    else:
        command.append(str(HERE / f"{task}.yaml"))
        settings = {"method": method, "seed": seed, "output": output, "model.name": arguments.model}
        settings["threads"] = arguments.threads
        settings.update(METHOD_SETTINGS.get(method, {}))
        settings.update(dict(item.split("=", 1) for item in arguments.set))
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)
    results = HERE / "results" / output.name
    results.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(output / name, results / name)
    samples = sorted((output / "rollouts").glob("step_*.jsonl"), key=lambda path: int(path.stem.split("_")[1]))
    for path in {samples[0], samples[-1]} if samples else set():
        shutil.copy(path, results / f"rollouts_{path.name}")


def test_one(task: str, method: str, seed: int, arguments: argparse.Namespace) -> None:
    """Measure one finished run on the test split; what has been measured already is left alone."""
    name = f"{task}-{method}-{seed}"
    for weights, prompt, kl in TESTED[method]:
        report = HERE / "results" / name / f"test_{weights}_{prompt}.json"
        if report.exists():
            continue
        command = [
            sys.executable, "-m", "fastslow", "evaluate", str(arguments.output / name), "--split", "test",
            "--weights", weights, "--prompt", prompt, "--json", str(report), "--set", f"threads={arguments.threads}",
        ]  # fmt: skip
        subprocess.run([*command, *(["--kl"] if kl else [])], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory of Qwen2.5-Coder-0.5B-Instruct")
    parser.add_argument("--tasks", nargs="+", default=["json", "boxed"])
    parser.add_argument("--methods", nargs="+", default=["fst", "rl", "prompt"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/format_rules"))
    parser.add_argument("--test", action="store_true", help="measure each run on the test split as well")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for method in arguments.methods:
                run_one(task, method, seed, arguments)
                if arguments.test:
                    test_one(task, method, seed, arguments)


if __name__ == "__main__":
    main()
