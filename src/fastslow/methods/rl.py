"""RL alone: FST with one prompt, the task's own, that never moves."""

from fastslow.config import Config
from fastslow.methods.base import Method, Session


class ReinforcementLearning(Method):
    """The weights move, the seed prompt stays."""

    title = "RL alone"
    colour = 1

    def train(self, session: Session) -> None:
        """T steps of RL a cycle, so that it meets the problems that FST meets."""
        while not session.finished:
            lookahead = session.next_minibatches()
            population = session.keep_population()
            for minibatch in session.remaining(lookahead):
                groups = session.roll_out(minibatch, population)
                session.reinforce(groups)
                session.close_step()

    def population_size(self, config: Config) -> int:
        """One prompt."""
        return 1

    def searches(self, config: Config) -> bool:
        """Never."""
        return False
