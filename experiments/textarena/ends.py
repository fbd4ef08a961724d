"""How the games of a run ended: a table of five steps a row, from the rollouts that the run kept.

python experiments/textarena/ends.py runs/textarena/tictactoe > experiments/textarena/results/ends.md
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.runs.files import read_lines

ENDS = ("won", "draw", "lost", "a cell that is taken", "no move, or cut off")
STEPS_A_ROW = 5


def end_of(rollout: Mapping[str, Any]) -> str:
    """One of ENDS. An illegal move loses the game, and the game's feedback says so."""
    feedback, reward = rollout["feedback"], rollout["reward"]
    if "occupied" in feedback:
        return "a cell that is taken"
    if "format" in feedback or rollout["end"] != "done":
        return "no move, or cut off"
    return "won" if reward == 1.0 else "draw" if reward > 0.0 else "lost"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run / "rollouts"
    last = max(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.jsonl"))
    print("| steps | games looked at |", " | ".join(ENDS), "|")
    print("|---|---|" + "---|" * len(ENDS))
    for first in range(1, last + 1, STEPS_A_ROW):
        steps = range(first, min(first + STEPS_A_ROW, last + 1))
        found = Counter(end_of(line) for step in steps for line in read_lines(folder / f"step_{step}.jsonl"))
        cells = [f"{steps[0]} to {steps[-1]}", found.total(), *(found[end] for end in ENDS)]
        print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()
