"""GEPA alone: prompts evolve under weights that stay. A step is a cycle of the search."""

from fastslow.config import Config
from fastslow.methods.base import Method, Session


class PromptEvolution(Method):
    """The prompts move, the weights stay."""

    title = "GEPA alone"
    colour = 2
    moves_weights = False

    def train(self, session: Session) -> None:
        """One search a step."""
        while not session.finished:
            session.search(session.next_minibatches())
            session.close_step()

    def search_steps(self, config: Config) -> int:
        """All of them."""
        return config.steps

    def when_it_searches(self, config: Config) -> str:
        """How often prompts are evolved, in words."""
        return "every step"

    def of_an_update(self, config: Config) -> list[str]:
        """There is none."""
        return []
