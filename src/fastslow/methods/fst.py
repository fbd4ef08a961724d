"""Fast-Slow Training: Algorithm 1 of arXiv 2605.12484.

Deviations from the paper: the rollout store forgets by age instead of being cleared each cycle; groups without variance
are left out of the update; see `rollouts/store.py` and `slow/advantages.py`.
"""

from fastslow.methods.base import Method, Session


class FastSlow(Method):
    """Prompts and weights move in turn: a search for prompts, then T steps of RL under them."""

    title = "FST"
    colour = 0
    reuses_rollouts = True

    def train(self, session: Session) -> None:
        """Algorithm 1."""
        while not session.finished:
            lookahead = session.next_minibatches()  # T minibatches, fetched ahead
            population = session.search(lookahead)  # fast weights: K prompts, evolved under the current policy
            for minibatch in session.remaining(lookahead):
                groups = session.roll_out(minibatch, population)  # G/K rollouts a prompt and problem
                session.reinforce(groups)  # slow weights: one CISPO step
                session.close_step()  # evaluate, log, save
