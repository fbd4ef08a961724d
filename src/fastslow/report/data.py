"""What the page is given: the shape of its block of JSON. The scripts in assets/ read these names."""

from typing import NotRequired, TypedDict

Number = int | float | None
"""None: nothing was measured, or it was not finite."""


class Shown(TypedDict, total=False):
    """One evaluation; what was not measured is not there. `accuracy` is mean@k, `best` best@k, `kl` in nats a token,
    `kl_completion` in nats a completion.
    """

    accuracy: float
    k: str
    best: Number
    tasks: dict[str, Number]
    kl: Number
    kl_completion: Number
    kl_name: str


class Point(Shown, total=False):
    """A point of a learning curve. Of a group the values are medians, with the lowest and the highest seed."""

    step: int
    rollouts: float
    seconds: float
    usd: Number
    accuracy_low: float
    accuracy_high: float
    best_low: float
    best_high: float
    kl_low: float
    kl_high: float
    kl_completion_low: float
    kl_completion_high: float


class Prompt(TypedDict):
    """One candidate of the fast side and what happened to it.

    `edits`: by component (start, end, first, last, changes within lines). `events`: (cycle, accepted, reason, mean,
    count). `reflections`: what a language model said when it wrote the prompt, and what it was asked.
    """

    hash: str
    parent: str | None
    cycle: int
    components: dict[str, str]
    edits: dict[str, list[list[object]]]
    accepted: bool
    mean: Number
    scored: int
    feedback: list[str]
    events: list[list[object]]
    reflections: list[tuple[str, str]]


class Grid(TypedDict):
    """The scores of one cycle: `rows` are (hash, score on each problem)."""

    cycle: int
    problems: list[str]
    rows: list[tuple[str, list[Number]]]


class Prompts(TypedDict):
    """The fast side of a run. `population`: hashes, best first; `populations`: (cycle,
    hashes that its search started from).
    """

    prompts: list[Prompt]
    grids: list[Grid]
    population: list[str]
    populations: list[tuple[int, list[str]]]


class Headline(TypedDict):
    """Accuracy before and at the end, with intervals, and in words whether it worked."""

    before: Number
    after: Number
    interval: tuple[float, float] | None
    interval_note: str | None
    verdict: str | None
    before_interval: NotRequired[tuple[float, float] | None]
    after_step: NotRequired[Number]
    kl: NotRequired[Number]
    kl_completion: NotRequired[Number]
    kl_name: NotRequired[str]


class Best(TypedDict):
    """The best prompt of a run beside the prompt that it began with; `edits` as of a prompt and its parent."""

    hash: str
    components: dict[str, str]
    seed: dict[str, str]
    edits: dict[str, list[list[object]]]


class Finding(TypedDict):
    """The finding in one line, and what somebody must know to read it."""

    title: str
    notes: list[str]


class RunData(Prompts):
    """One run. `training`: columns, one value a step: where it stood, and every number of metrics.jsonl by its name.
    `samples`: rows of the fields of `samples.SAMPLE`; `texts`:
    the components of prompts that samples name and `prompts` has not.

    `part`: it belongs to an experiment. `left_out`: how much of each kind did not fit the page.
    """

    name: str
    path: str
    method: str
    task: str
    task_options: str
    model: str
    seed: int | None
    planned_steps: int | None
    problems: int | None
    evaluations: list[Point]
    training: dict[str, list[Number]]
    totals: dict[str, Number]
    errors: list[list[object]]
    samples: list[list[object]]
    texts: dict[str, dict[str, str]]
    best: Best | None
    config: object
    id: NotRequired[str]
    part: NotRequired[bool]
    left_out: dict[str, int]


class Table(TypedDict):
    """Texts, row by row."""

    head: list[str]
    rows: list[list[str]]


class Series(TypedDict):
    """A line of a panel: a run (`run` is its place in `runs`), or a group of runs with a curve of its own.
    `colour` is its place in the palette.
    """

    name: str
    method: str | None
    count: int
    totals: dict[str, Number]
    headline: Headline
    colour: NotRequired[int]
    run: NotRequired[int]
    evaluations: NotRequired[list[Point]]


class Panel(TypedDict):
    """Curves and tables that belong together. `finding` is what they say; `about` what was run; `axis` says on the axis
    of rollouts that the series did not sample the same number.
    """

    title: str
    kind: str
    note: str
    about: str
    finding: Finding
    axis: str
    series: list[Series]
    table: Table
    measures: Table | None
    best_prompts: list[dict[str, str]]
    settings: list[dict[str, object]]


class PageData(TypedDict):
    """Everything on the page. `ends`: in words, why an episode ended. `metrics`: (unit, meaning) of the metrics that
    there are. `methods`: what each is called, and its place in the palette.
    """

    version: str | None
    made: str
    title: str
    runs: list[RunData]
    panels: list[Panel]
    notes: list[str]
    ends: dict[str, str]
    metrics: dict[str, tuple[str, str]]
    methods: dict[str, tuple[str, int]]
