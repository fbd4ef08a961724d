"""The config of a run: `run` has what it consists of, `load` how it is read. Sections stand with their components."""

from fastslow.config.load import apply_override, load_config, parse_config, with_overrides
from fastslow.config.run import Config
from fastslow.config.yaml_text import read_yaml

__all__ = ["Config", "apply_override", "load_config", "parse_config", "read_yaml", "with_overrides"]
