#!/usr/bin/env bash
# The unit tests that need no torch, on the other Pythons that the package names, those of them that this machine has.
# torch for each Python is gigabytes on most indexes: so what computes is tested on one Python. ruff and vermin check that all
# code is code of every one.
set -euo pipefail
cd "$(dirname "$0")/.."
versions=(3.12 3.13)
tests=(
  tests/unit/config/test_config.py tests/unit/deploy/test_prompts.py
  tests/unit/fast/test_pareto.py tests/unit/lab/test_rules.py tests/unit/measuring/test_intervals.py
  tests/unit/runs/test_family.py tests/unit/runs/test_files.py tests/unit/runs/test_metrics.py
  tests/unit/runs/test_refusals.py tests/unit/runs/test_transcripts.py
)

interpreter() { # of a version: the path's, pyenv's, or uv's
  local found
  for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python "$(uv python find "$1" 2>/dev/null || true)"; do
    if [ -n "$found" ] && "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      echo "$found"
      return 0
    fi
  done
  return 1
}

for version in "${versions[@]}"; do
  if ! python=$(interpreter "$version"); then
    echo "Python $version is not on this machine: nothing is tested on it"
    continue
  fi
  place=.venv-py$version
  if [ ! -f "$place/.ready" ] || [ pyproject.toml -nt "$place/.ready" ]; then
    "$python" -m venv "$place"
    "$place/bin/python" - > "$place/needs.txt" <<'NEEDS'
import tomllib
needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
print("\n".join(["pytest", "hypothesis", *(need for need in needs if not need.startswith(("torch", "peft")))]))
NEEDS
    grep -v '^torch' constraints.txt > "$place/constraints.txt"
    "$place/bin/python" -m pip install --quiet --constraint "$place/constraints.txt" --requirement "$place/needs.txt"
    touch "$place/.ready"
  fi
  echo "Python $version"
  "$place/bin/python" -W error::SyntaxWarning -m compileall -q src
  PYTHONPATH=src XDG_STATE_HOME=$place/state "$place/bin/python" -m pytest --noconftest -p no:cacheprovider "${tests[@]}"
done
