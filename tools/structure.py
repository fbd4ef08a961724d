"""Counts what keeps the house in order: circles, imports that point upwards, long files and functions, docstrings.

    python tools/structure.py            # prints the table; the exit status is 1 where a goal is missed
    python tools/structure.py --where    # and every place

The order of the rooms is `LAYERS`: a module may import from its own room and from rooms that stand before it.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "fastslow"
PACKAGE = "fastslow"
GROUND = (
    "errors",
    "types",
    "seeding",
    "text",
    "resources",
    "redact",
    "quiet",
    "section",
    "given",
    "extension",
    "threads",
)
LAYERS = (
    *GROUND,
    "settings",
    "config",
    "tasks",
    "slow",
    "fast",
    "rollouts",
    "runs",
    "methods",
    "measuring",
    "training",
    "loop",
    "plan",
    "deploy",
    "export",
    "testing",
    "experiments",
    "lab",
    "reproduce",
    "starter",
    "report",
    "cli",
    "api",
    "__main__",
)
"""From the ground upwards. `settings` are the sections of the config: each lies in its component's room, and stands on
the ground, so that the config knows all of them and components need no more of it than their own.
"""
METHODS = frozenset({"fst", "rl", "prompt", "distill"})
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
DOCUMENTED = 0.9


@dataclass(frozen=True)
class Count:
    """One line of the table: what was counted, the goal in words, whether it is met, and the places."""

    what: str
    value: str
    goal: str
    met: bool
    places: tuple[str, ...] = ()


def modules(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module's tree by its name within the package; a package stands under its own name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which modules of the package each module imports, inside functions too."""
    found: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
                base = node.module.removeprefix(PACKAGE).lstrip(".")
                for alias in node.names:
                    inner = ".".join(filter(None, (base, alias.name)))
                    found[name].add(inner if inner in trees else base)
        found[name].discard(name)
    return found


def circles(edges: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of modules that reach each other (strongly connected components of more than one)."""
    reach = {name: _reachable(name, edges) for name in edges}
    groups = {tuple(sorted(o for o in reach[name] if name in reach[o])) for name in edges if name in reach[name]}
    return sorted(groups)


def _reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(edges[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges.get(name, ())
    return seen


def upwards(edges: Mapping[str, set[str]]) -> list[str]:
    """Imports from a room that stands later in `LAYERS`; a room that is not listed is an error."""
    level = {name: index for index, name in enumerate(LAYERS)}
    found = []
    for name, targets in sorted(edges.items()):
        for target in sorted(targets):
            here, there = _room(name), _room(target)
            # The package's own file names what is public, and imports it lazily.
            if not here or not there:
                continue
            if level[there] > level[here]:
                found.append(f"{name} imports {target}")
    return found


def _room(module: str) -> str:
    names = module.split(".")
    return "settings" if names[-1] == "settings" else names[0]


def functions(trees: Mapping[str, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function with its module, and whether it is public: no part of its path starts with an underscore."""

    def walk(node: ast.AST, module: str, public: bool) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                own = public and not child.name.startswith("_")
                yield module, child, own  # type: ignore[misc]
                yield from walk(child, module, False)
            else:
                inside = public and not (isinstance(child, ast.ClassDef) and child.name.startswith("_"))
                yield from walk(child, module, inside)

    for module, tree in trees.items():
        yield from walk(tree, module, True)


def asks_for_a_method(trees: Mapping[str, ast.Module]) -> list[str]:
    """Comparisons of something called `method`, and tables of the methods' names, outside `methods`."""
    found = []
    for module, tree in trees.items():
        if module.split(".")[0] == "methods":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and any(_is_method(part) for part in (node.left, *node.comparators)):
                constants = {c.value for part in ast.walk(node) for c in [part] if isinstance(c, ast.Constant)}
                if constants & METHODS:
                    found.append(f"{module}:{node.lineno} compares")
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                named = all(isinstance(value, ast.Constant) and isinstance(value.value, str) for value in node.values)
                if len(keys & METHODS) > 1 and named and module != "methods.settings":
                    found.append(f"{module}:{node.lineno} has a table of their names")
    return found


def _is_method(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "method"
    if isinstance(node, ast.Name):
        return node.id == "method"
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "method"
    if isinstance(node, ast.Call):
        return any(isinstance(argument, ast.Constant) and argument.value == "method" for argument in node.args)
    return False


def count(root: Path = ROOT) -> list[Count]:
    """The table."""
    trees = modules(root)
    edges = imports(trees)
    lines = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in root.rglob("*.py")
    }
    long_files = [f"{name}: {size} lines" for name, size in sorted(lines.items()) if size > LONGEST_FILE]
    every = list(functions(trees))
    lengths = [(f"{module}: {node.name}", (node.end_lineno or 0) - node.lineno + 1) for module, node, _ in every]
    long_functions = [f"{name}: {size} lines" for name, size in lengths if size > LONGEST_FUNCTION]
    public = [(module, node) for module, node, own in every if own]
    bare = [f"{module}:{node.lineno} {node.name}" for module, node in public if not ast.get_docstring(node)]
    share = 1 - len(bare) / max(1, len(public))
    rings = [" <-> ".join(ring) for ring in circles(edges)]
    asking = asks_for_a_method(trees)
    arrows = upwards(edges)
    return [
        Count("import circles", str(len(rings)), "0", not rings, tuple(rings)),
        Count("upward imports", str(len(arrows)), "0", not arrows, tuple(arrows)),
        Count(f"files above {LONGEST_FILE} lines", str(len(long_files)), "0", not long_files, tuple(long_files)),
        Count(
            f"functions above {LONGEST_FUNCTION} lines",
            str(len(long_functions)),
            "0",
            not long_functions,
            tuple(long_functions),
        ),
        Count(
            "public functions with a docstring", f"{share:.0%}", f"{DOCUMENTED:.0%}", share >= DOCUMENTED, tuple(bare)
        ),
        Count("places that ask for a method", str(len(asking)), "0", not asking, tuple(asking)),
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where", action="store_true", help="list every place")
    options = parser.parse_args()
    found = count()
    print("| what | count | goal |\n|---|---|---|")
    for line in found:
        print(f"| {line.what} | {line.value} | {line.goal} |")
    for line in found if options.where else ():
        for place in line.places:
            print(f"{line.what}: {place}")
    return 0 if all(line.met for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
