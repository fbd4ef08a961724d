"""Games of TextArena by their names, alone or against opponents.

The package's wrappers show the whole history in each observation. Here a turn shows only what is new: the conversation
is the history. What the wrappers do to a move (brackets around it) stays.

The policy has one seat. The others are played by `opponent`: a callable from the observation to a move, as TextArena's
agents are, or `random`: a legal move, found by trying on a copy of the game what the game's own words show in brackets.
The policy against itself is not offered: an episode here is one conversation with one reward, and a game of two is two.
"""

import contextlib
import copy
import difflib
import inspect
import io
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError
from fastslow.extension import load_object
from fastslow.tasks.base import EpisodeTask, Split, with_system_prompt
from fastslow.tasks.environments.dice import rolling, seed_module
from fastslow.tasks.environments.rows import numbers_of
from fastslow.tasks.environments.text import checked_range
from fastslow.types import Message, Problem, Prompt, Score, Tool

SEED_PROMPT = "You play a game."
RANDOM = "random"
MOST_PLAYERS = 15
TRIES = 400
LONGEST_MOVE = 4000
LENGTH_RULE = f"A move has at most {LONGEST_MOVE} characters."
INVALID = re.compile(r"invalid move\. Reason: (.*?) Please resubmit", re.DOTALL)
_BRACKETS = re.compile(r"\[([^\[\]\n]{1,40})\]")
_RESOURCE = re.compile(r"nltk\.download\('([\w-]+)'\)")
UNSEEDED = re.compile(r"\b(?:np|numpy)\.random\.(?!default_rng|Generator)")
"""A game's source that draws from numpy's one state for the whole process."""

Opponent = Callable[[str], str]


class TextArenaTask(EpisodeTask):
    """A game of TextArena."""

    def __init__(
        self,
        game: str,
        game_options: dict[str, Any] | None = None,
        players: int | None = None,
        seat: int | None = None,
        opponent: str | Opponent = RANDOM,
        reward_range: list[float] | None = None,
        train: int = 1000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        self.name, self.game, self.game_options = f"textarena:{game}", game, game_options or {}
        self.arena = import_textarena()
        if game not in self.arena.envs.registration.ENV_REGISTRY:
            close = difflib.get_close_matches(game, self.arena.envs.registration.ENV_REGISTRY, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise ConfigError(f"task.name: TextArena has no game {game!r}.{hint} Its README lists them")
        self.players = self._count(players)
        if seat is not None and not 0 <= seat < self.players:
            raise ConfigError(f"task.options.seat: {seat}: the seats are 0 to {self.players - 1}")
        self.seat = 0 if self.players == 1 else seat
        self.opponent: Opponent | None = None
        if opponent != RANDOM:
            self.opponent = load_object(opponent, "task.options.opponent") if isinstance(opponent, str) else opponent
        default = [0.0, 1.0] if self.players == 1 else [-1.0, 1.0]
        self.low, self.high = checked_range(default if reward_range is None else reward_range)
        sizes: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self._splits: dict[Split, list[Problem]] = {
            split: [self._problem(number) for number in numbers] for split, numbers in numbers_of(sizes, seed).items()
        }

    @property
    def seed_prompt(self) -> Prompt:
        """It says that a game is played; the game says its rules."""
        return Prompt.of(SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def episode(self, problem: Problem, prompt: Prompt) -> "GameEpisode":
        """A new game. It is set up when it starts."""
        return GameEpisode(self, problem, prompt)

    def make(self) -> Any:
        """A game."""
        return self.arena.make(self.game, **self.game_options)

    def _try(self) -> Any:
        """A first game. Raises ConfigError where it cannot be made, or cannot be seeded."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # some games want to download word lists, and talk about it
                game = self.make()
        except LookupError as error:
            missing = _RESOURCE.search(str(error))
            raise ConfigError(
                f"task.name: game {self.game!r} needs data of nltk, which is not on this machine. Get it once: python "
                f"-m nltk.downloader {missing[1] if missing else 'words'}"
            ) from error
        except Exception as error:  # the game's own code, and options that it does not have
            raise ConfigError(
                f"task.name: game {self.game!r} cannot be made with {self.game_options}: "
                f"{type(error).__name__}: {error}"
            ) from error
        for name in [name for name in sys.modules if name.partition(".")[0] == "textarena"]:
            seed_module(name)
        if UNSEEDED.search(inspect.getsource(sys.modules[type(innermost(game)).__module__])):
            raise ConfigError(
                f"task.name: game {self.game!r} draws from numpy, which cannot be seeded for each episode"
            )
        return game

    def _count(self, players: int | None) -> int:
        """How many players there are: as many as the option says, or the least that the game takes."""
        problem = None
        for count in range(1, MOST_PLAYERS + 1) if players is None else [players]:
            game = self._try()
            try:
                with rolling(random.Random(0)):
                    game.reset(num_players=count, seed=0)
            except Exception as error:  # games say it with an assertion, or otherwise
                problem = error
            else:
                return count
        raise ConfigError(f"task.options.players: game {self.game!r} does not start with {players or 'any'}: {problem}")

    def _problem(self, number: int) -> Problem:
        seat = number % self.players if self.seat is None else self.seat
        message = {"role": "user", "content": f"A game of {self.game}."}
        return Problem(f"{self.name}-{number}", (message,), {"seed": number, "seat": seat})


class GameEpisode:
    """One game, from the seat of the policy."""

    tools: Sequence[Tool] = ()

    def __init__(self, task: TextArenaTask, problem: Problem, prompt: Prompt) -> None:
        self.task, self.prompt = task, prompt
        self.seed, self.seat = int(problem.data["seed"]), int(problem.data["seat"])
        self.dice = random.Random(self.seed)
        self.choices = random.Random(f"opponent {self.seed}")
        self.game: Any = None
        self.seen: dict[int, str] = {}
        """What the opponents have read so far, by seat."""
        self.invalid: list[str] = []
        self.over = False

    def start(self) -> Sequence[Message]:
        """Set the game up, and have opponents move who move first."""
        with rolling(self.dice):
            self.game = self.task.make()
            self.game.reset(num_players=self.task.players, seed=self.seed)
            self._opponents()
            opening = self._news()
        return with_system_prompt([{"role": "user", "content": opening}], self.prompt.system)

    def step(self, text: str) -> Sequence[Message]:
        """Make the policy's move, and the opponents'; then what is new. Nothing where the game is over."""
        if self.over:
            return ()
        if len(text) > LONGEST_MOVE:
            # Games break on numbers of thousands of digits, and that is not their fault.
            self.invalid.append(LENGTH_RULE)
            return [{"role": "user", "content": LENGTH_RULE}]
        with rolling(self.dice):
            self.over, _ = self.game.step(action=text)
            self._opponents()
            news = self._news() if not self.over else ""
        return () if self.over else [{"role": "user", "content": news or "It is your turn."}]

    def score(self) -> Score:
        """The game's reward for the policy's seat, 0 if not over; why it ended, and which moves were refused."""
        state = innermost(self.game).state
        if not self.over or state.rewards is None:
            return Score(0.0, "\n".join(dict.fromkeys([*self.invalid, "The game was not over."])))
        got = float(state.rewards.get(self.seat, 0.0))
        reward = (min(self.task.high, max(self.task.low, got)) - self.task.low) / (self.task.high - self.task.low)
        reason = str(state.game_info.get(self.seat, {}).get("reason") or f"The game gave {got:g}.")
        return Score(reward, "\n".join(dict.fromkeys([*self.invalid, reason])))

    def close(self) -> None:
        """It holds nothing."""

    # -- inside --------------------------------------------------------------------------------------------------------

    def _opponents(self) -> None:
        """The others move until it is the policy's turn, or the game is over."""
        inner = innermost(self.game)
        while not self.over and inner.state.current_player_id != self.seat:
            player, observation = inner.get_observation()
            self.seen[player] = "\n".join([*filter(None, [self.seen.get(player)]), *self._lines(player, observation)])
            move = self.task.opponent(self.seen[player]) if self.task.opponent is not None else self._legal(player)
            self.over, _ = self.game.step(action=str(move))

    def _news(self) -> str:
        """What the policy has not read yet, its own moves left out."""
        _, observation = innermost(self.game).get_observation()
        for _, message, _ in observation:
            self.invalid += [" ".join(reason.split()) for reason in INVALID.findall(message)]
        return "\n\n".join(line for line in self._lines(self.seat, observation) if line)

    def _lines(self, player: int, observation: Sequence[tuple[int, str, Any]]) -> list[str]:
        roles = innermost(self.game).state.role_mapping
        shown = [(who, text) for who, text, kind in observation if (who, kind.name) != (player, "PLAYER_ACTION")]
        return [
            text.strip() if who < 0 else f"[{roles.get(who, f'Player {who}')}] {text.strip()}" for who, text in shown
        ]

    def _legal(self, player: int) -> str:
        """A move that the game takes, drawn from those that its words show."""
        for move in candidates(self.seen[player], self.choices):
            trial = copy.deepcopy(self.game)
            with rolling(random.Random(0)):
                trial.step(action=move)
            state = innermost(trial).state
            refused = getattr(state, "error_count", 0) or state.game_info.get(player, {}).get("invalid_move")
            if not refused:
                return move
        raise InfrastructureError(
            f"no legal move was found for the opponent in {self.task.game!r}: name one of yours in "
            "task.options.opponent"
        )


def innermost(game: Any) -> Any:
    """The game without its wrappers."""
    while "env" in vars(game):
        game = game.env
    return game


def candidates(words: str, rng: random.Random) -> Iterator[str]:
    """Moves in brackets that a game's words show, and the same with other numbers in them, in a random order."""
    shown = dict.fromkeys(_BRACKETS.findall(words))
    found = dict.fromkeys(f"[{text}]" for text in shown)
    for text in shown:
        for number in range(10):
            found[f"[{re.sub(r'[0-9]+', str(number), text, count=1)}]"] = None
            found[f"[{re.sub(r'[0-9]+', str(number), text)}]"] = None
    moves = list(found)
    rng.shuffle(moves)
    yield from moves[:TRIES]


def import_textarena() -> Any:
    """The package. Raises ConfigError that names the extra where it is missing."""
    try:
        import textarena
    except ImportError as error:
        raise ConfigError(f"task.name: {error.name} is not installed: pip install 'fastslow[textarena]'") from error
    return textarena


def list_games() -> list[str]:
    """The names of all games. Raises ConfigError where the package is missing."""
    return sorted(import_textarena().envs.registration.ENV_REGISTRY)
