"""Fast-Slow Training: RL moves the weights of a language model while reflective evolution moves its prompts.

    import fastslow

    result = fastslow.train("config.yaml", steps=20)
    print(result.best_prompt.system)
    print(fastslow.evaluate(result.run, prompt="best").rows[0].result.mean)

Names are imported when they are first used, so that `import fastslow` is quick and has no side effects.
"""

import importlib
import sys
from types import ModuleType
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
    "describe": "api.calls",
    "evaluate": "api.calls",
    "experiment": "api.calls",
    "export": "api.calls",
    "load_config": "config",
    "parse_config": "config",
    "read_candidates": "runs.reader",
    "read_metrics": "runs.reader",
    "read_population": "runs.reader",
    "read_reflections": "runs.reader",
    "serve": "deploy.serve",
    "train": "api.calls",
}

__all__ = sorted(_HOME)


class _Package(ModuleType):
    """The package: a submodule does not take the place of the function that has its name (`fastslow.export`)."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastslow' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastslow.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
