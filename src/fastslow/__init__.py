"""Fast-Slow Training: RL moves the weights of a language model while reflective evolution moves its prompts.

    import fastslow

    config = fastslow.load_config("config.yaml", ["steps=20"])
    result = fastslow.train(config)
    print(result.best_prompt.system)
    print(fastslow.evaluate(result.run, prompt="best").rows[0].result.mean)

Names are imported when they are first used, so that `import fastslow` is quick and has no side effects.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Completion": "types",
    "Config": "config",
    "ConfigError": "errors",
    "EpisodeTask": "tasks.base",
    "FastslowError": "errors",
    "InfrastructureError": "errors",
    "Problem": "types",
    "Prompt": "types",
    "ResumeError": "errors",
    "Rollout": "types",
    "Score": "types",
    "ScoringFailure": "tasks.base",
    "Task": "tasks.base",
    "TaskError": "errors",
    "TrainResult": "training.session",
    "describe": "plan",
    "evaluate": "measuring.evaluate",
    "experiment": "experiments.commands",
    "export": "export",
    "load_config": "config",
    "parse_config": "config",
    "read_candidates": "runs.reader",
    "read_metrics": "runs.reader",
    "read_population": "runs.reader",
    "read_reflections": "runs.reader",
    "serve": "deploy.serve",
    "train": "loop",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastslow' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastslow.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
