"""Reading YAML that people write: strict where YAML 1.1 guesses, and with file and line in every complaint."""

import re
from typing import Any

import yaml

from fastslow.errors import ConfigError
from fastslow.section import LARGEST_INTEGER, MOST_LEVELS
from fastslow.text import shortened, shown


class _Refused(Exception):
    """YAML that is read otherwise than it looks."""

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {reason}")


# More than any config that a person writes. Aliases count as often as they stand:
# ten lines can stand for a billion values.
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML less what it silently takes for something else.

    YAML 1.1 takes 1e-6 for text, where everybody who writes it means the number; 010 for 8 and 1:30 for 90;
    and of a key that stands twice the last one.
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
                    raise _Refused(
                        key, f"the key {shown(key.value)} stands in line {line} already: keep one of the two"
                    )
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, TypeError, AttributeError):  # what the library makes of `!!int ""`
            kind = node.tag.rpartition(":")[2]
            raise _Refused(
                node, f"{shown(node.value)} is no {kind}, as its tag !!{kind} says: leave the tag out"
            ) from None

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if re.match(r"[-+]?0[0-9_]|.*:", self.construct_scalar(node)):
            reason = (
                "is another number to YAML than it looks: write it in plain digits, or in quotes where it is a text"
            )
            raise _Refused(node, f"{shortened(node.value, 200)} {reason}")
        if not node.tag.endswith("int"):
            return self.construct_yaml_float(node)
        # Binary, octal and hexadecimal digits say less than decimal ones, so this many are too many in any of them.
        if len(node.value) > 80 or abs(number := self.construct_yaml_int(node)) > LARGEST_INTEGER:
            raise _Refused(node, f"an integer of {len(node.value)} digits is beyond {LARGEST_INTEGER}")
        return number


class _Dumper(yaml.SafeDumper):
    """YAML that `_Loader` reads back as it was: a text such as 1e6 gets quotes."""


_EXPONENT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
for each in (_Loader, _Dumper):
    each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(text: str, source: str = "this text") -> Any:
    """Safe YAML in which 1e-6 is a number. Raises ConfigError with `source` and the line for what is not YAML,
    or repeats.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except _Refused as error:
        raise ConfigError(f"{source}, {error}") from None
    except RecursionError:
        raise ConfigError(f"{source} is nested more than {MOST_LEVELS} levels deep: no config needs that") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error


def write_yaml(tree: Any) -> str:
    """The text of plain values, that `read_yaml` gives back as they were, in the order of their keys."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_size(root: yaml.Node) -> None:
    """Raises _Refused for a value that holds itself, for too many levels, and for aliases that stand for too much."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, level: int) -> int:
        if id(node) in open_nodes:
            raise _Refused(node, "this value holds itself through an alias: write it out")
        if level > MOST_LEVELS:
            raise _Refused(node, f"this is nested more than {MOST_LEVELS} levels deep: no config needs that")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size(child, level + 1) for child in _children(node))
            open_nodes.remove(id(node))
        if sizes[id(node)] > MOST_VALUES:
            raise _Refused(node, f"this stands for more than {MOST_VALUES} values, its aliases written out")
        return sizes[id(node)]

    size(root, 0)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
