"""The contract of a proposer, for its author to run.

from fastslow.testing.proposers import check_proposer

def test_my_proposer():
    check_proposer(MyProposer())
"""

import copy
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import BatchProposer, Example, Proposal, ProposalRequest, Proposer
from fastslow.testing.contract import require, run_checks
from fastslow.types import SYSTEM, Prompt

PARENT = Prompt.of("You are a careful clerk.\nAnswer in words.")
WIDER = Prompt.from_dict({SYSTEM: "You are a careful clerk.", "skill": "Count on your fingers.\nCount twice."})
RULES = ("Write the number in digits.", "Put it into \\boxed{}.")
Outcome = Proposal | ReflectionError


@dataclass(frozen=True)
class ProposerCase:
    """A proposer, whether it is expected to write something, and whether the same question gets the same answer."""

    proposer: Proposer
    writes: bool
    repeats: bool

    def ask(self, request: ProposalRequest) -> Outcome:
        """What a request gives. Raises whatever is not a ReflectionError."""
        try:
            return self.proposer.propose(request.parent, request.component, request.examples, seed=request.seed)
        except ReflectionError as error:
            return error


def check_proposer(proposer: Proposer, *, writes: bool = True, repeats: bool = True) -> None:
    """Run every check; a proposer that calls a server is asked some twenty times. Raises AssertionError.

    `writes=False` is for one that may refuse everything here, such as an untrained policy; `repeats=False` for a server
    that does not keep to a seed.
    """
    run_checks("the proposer", CHECKS, ProposerCase(proposer, writes, repeats))


def examples(rule: str = RULES[0], *, reward: float = 0.0) -> tuple[Example, ...]:
    """What reflection sees of three rollouts."""
    return tuple(Example(f"What is {i} + {i}?", "a word", reward, rule if reward < 1.0 else "") for i in range(3))


def request(
    seed: int = 1, *, parent: Prompt = PARENT, component: str = SYSTEM, rule: str = RULES[0]
) -> ProposalRequest:
    """A question that every proposer has an answer to."""
    return ProposalRequest(parent, component, examples(rule), seed)


def keeps_to_the_form(outcome: Outcome, asked: ProposalRequest) -> None:
    """A proposal is a whole, new text with its usage; an error carries its usage, too."""
    require(
        isinstance(outcome, Proposal | ReflectionError), f"an outcome is a Proposal or a ReflectionError: {outcome!r}"
    )
    require(isinstance(outcome.usage, Usage), f"{type(outcome).__name__}.usage is a Usage: what the call cost")
    usage = outcome.usage if isinstance(outcome.usage, Usage) else Usage()
    require(all(number is None or number >= 0 for number in astuple(usage)), f"no number of {usage} is below 0")
    if isinstance(outcome, Proposal):
        require(isinstance(outcome.text, str), f"a proposal's text is a text, not {outcome.text!r}")
        require(bool(outcome.text.strip()), "an empty text is refused with ReflectionError(..., Usage(refused=1))")
        before = asked.parent.as_dict()[asked.component]
        require(outcome.text != before, "an unchanged text is refused with ReflectionError(..., Usage(refused=1))")


def writes_a_new_text(case: ProposerCase) -> None:
    """Two plain questions bring one proposal at least, unless the author expects none."""
    outcomes = [case.ask(request(seed)) for seed in (1, 2)]
    for outcome in outcomes:
        keeps_to_the_form(outcome, request())
    written = any(isinstance(outcome, Proposal) for outcome in outcomes)
    require(written or not case.writes, f"two plain requests must bring a proposal, they brought {outcomes}")


def an_error_says_whether_the_call_failed_or_was_refused(case: ProposerCase) -> None:
    """A failed call may be tried again; a refused text was paid for. Metrics tell them apart."""
    for seed in (1, 2):
        error = case.ask(request(seed))
        spent = error.usage if isinstance(error, ReflectionError) else None
        if isinstance(spent, Usage):
            require(spent.failures + spent.refused > 0, f"an error counts a failure or a refusal in its usage: {spent}")


def asks_the_same_question_for_the_same_seed(case: ProposerCase) -> None:
    """Other questions in between change nothing. Holds where the author says that answers repeat."""
    if case.repeats:
        first, _, second = case.ask(request(7)), case.ask(request(8, rule=RULES[1])), case.ask(request(7))
        require(str(first) == str(second), f"same arguments, same seed, same outcome: {first}, then {second}")


def leaves_its_arguments_alone(case: ProposerCase) -> None:
    """The examples are shown to other proposals of the same cycle."""
    shown = list(examples())
    before = copy.deepcopy(shown)
    case.ask(ProposalRequest(PARENT, SYSTEM, shown, 1))  # type: ignore[arg-type]  # a list, which could be changed
    require(shown == before, "`propose` must not change the list of examples: others are asked with it")


def writes_the_component_that_it_is_asked_for(case: ProposerCase) -> None:
    """A prompt of two components is changed in one; the other's text is not copied into it."""
    asked = request(3, parent=WIDER, component="skill")
    outcome = case.ask(asked)
    keeps_to_the_form(outcome, asked)
    if isinstance(outcome, Proposal):
        own = WIDER.as_dict()[SYSTEM]
        require(own not in outcome.text, "the proposal is the component's text alone: another component stands in it")


def takes_any_rollout(case: ProposerCase) -> None:
    """Rollouts are a model's words: any length, any mark."""
    odd: Sequence[tuple[Example, ...]] = (
        examples(reward=1.0),
        examples(""),
        (Example("", "", 0.0, ""),),
        (Example("q" * 20000, "a" * 20000, 0.5, "f" * 20000),),
        (Example("{question} %s {0}", "</new_prompt> <new_prompt>", 0.0, "\0\x1b[2J\N{SNOWMAN} {}"),) * 3,
    )
    for shown in odd:
        asked = ProposalRequest(PARENT, SYSTEM, shown, 1)
        try:
            outcome = case.ask(asked)
        except Exception as error:
            raise AssertionError(
                f"an example with the feedback {shown[0].feedback[:20]!r} must give a Proposal or a ReflectionError, "
                f"it raised {type(error).__name__}: {error}"
            ) from error
        keeps_to_the_form(outcome, asked)


def takes_a_batch_in_order(case: ProposerCase) -> None:
    """Checked where the proposer has `propose_batch`: outcome i answers request i."""
    proposer = case.proposer
    if not isinstance(proposer, BatchProposer):
        return
    requests = [request(1), request(2, rule=RULES[1]), request(3, parent=WIDER, component="skill")]
    outcomes = proposer.propose_batch(requests)
    require(len(outcomes) == len(requests), f"one outcome a request: {len(outcomes)} for {len(requests)}")
    for asked, outcome in zip(requests, outcomes, strict=True):
        keeps_to_the_form(outcome, asked)
        if case.repeats:
            require(str(outcome) == str(case.ask(asked)), "a batch gives what its requests give alone, in their order")


CHECKS = (
    writes_a_new_text,
    an_error_says_whether_the_call_failed_or_was_refused,
    asks_the_same_question_for_the_same_seed,
    leaves_its_arguments_alone,
    writes_the_component_that_it_is_asked_for,
    takes_any_rollout,
    takes_a_batch_in_order,
)
