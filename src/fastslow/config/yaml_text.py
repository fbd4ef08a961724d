"""Reading YAML that people write: strict where YAML 1.1 guesses, and with file and line in every complaint."""

import re
from typing import Any

import yaml

from fastslow.errors import ConfigError


class _Refused(Exception):
    """YAML that is read otherwise than it looks."""

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {reason}")


class _Loader(yaml.SafeLoader):
    """YAML less what it silently takes for something else.

    YAML 1.1 takes 1e-6 for text, where everybody who writes it means the number; 010 for 8 and 1:30 for 90; and of a key that
    stands twice the last one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], Any] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                known = first.setdefault((key.tag, key.value), key)
                if known is not key:
                    line = known.start_mark.line + 1
                    raise _Refused(key, f"the key {key.value!r} stands in line {line} already: keep one of the two")
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if re.match(r"[-+]?0[0-9_]|.*:", node.value):
            reason = (
                "is another number to YAML than it looks: write it in plain digits, or in quotes where it is a text"
            )
            raise _Refused(node, f"{node.value} {reason}")
        if node.tag.endswith("int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(text: str, source: str = "this text") -> Any:
    """Safe YAML in which 1e-6 is a number. Raises ConfigError with `source` and the line for what is not YAML, or repeats."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except _Refused as error:
        raise ConfigError(f"{source}, {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
