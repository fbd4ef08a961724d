"""What stands in a run's config.yaml."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fastslow.config import Config
from fastslow.config.yaml_text import write_yaml
from fastslow.given import resume_line

PACKAGES = ("fastslow", "torch", "transformers", "peft", "gepa", "numpy")
OBJECTS = (
    "# Names such as <object: NAME> stand for Python objects, which no file holds. Resume the run from Python, "
    "with them:"
)


def config_text(config: Config) -> str:
    """Every option as resolved, and the versions that it ran with; on top how to go on where that takes objects."""
    tree = config.model_dump(mode="json")
    line = resume_line(tree, config.output)
    head = "" if line is None else f"{OBJECTS}\n#     {line}\n"
    tree["versions"] = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return head + write_yaml(tree)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
