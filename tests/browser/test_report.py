"""The report in a real browser: what it shows, how it is used, and that hostile text does nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastslow.report.commands import write
from fastslow.report.serve import make_server

from report_runs import HOSTILE, SEED, candidate, episode, make_run, metrics_line, result_line, sample, write_lines

SAMPLES = {
    1: [sample("alpha answer"), sample("beta answer", reward=0.0, feedback="Sort them.", source="gepa", prompt="aaaa")],
    3: [sample("gamma answer", reward=0.5), sample("delta", reward=None, failure="the scorer was down", feedback="")],
}


@dataclass
class Opened:
    """A page, and what went wrong on it: console errors, exceptions, dialogs, requests."""

    page: Any
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens an address; at the end no page may have complained."""
    contexts, seen = [], []

    def open_page(address: str, width: int = 1280, scheme: str = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        seen.append(opened)
        opened.page.set_default_timeout(60_000)
        opened.page.on("console", lambda m: opened.errors.append(m.text) if m.type in ("error", "warning") else None)
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on("dialog", lambda dialog: (opened.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        opened.page.goto(address)
        opened.page.wait_for_selector("body[data-ready=true]")
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert [error for opened in seen for error in opened.errors] == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two runs side by side."""
    root = tmp_path_factory.mktemp("report")
    first = make_run(root / "first", samples=SAMPLES)
    second = make_run(root / "second", steps=3, samples={2: [sample("from the second run")]}, seed=1)
    write([first, second], root / "report.html")
    return (root / "report.html").as_uri()


def colour(page: Any, selector: str = "body") -> str:
    found: str = page.locator(selector).first.evaluate("element => getComputedStyle(element).backgroundColor")
    return found


def test_charts_have_marks_names_and_switch_their_axis(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    for chart in (
        "chart-accuracy",
        "chart-kl",
        "chart-drift",
        "chart-reward",
        "chart-entropy",
        "chart-time",
        "chart-rollouts",
    ):
        assert page.locator(f"#{chart} svg path[fill]:not([fill=none])").count() > 3, chart
    dashes = page.locator("#chart-accuracy svg path[stroke-dasharray]").count()
    assert dashes >= 1
    axis = page.locator("#chart-accuracy svg")
    assert "budgets differ: series end at 60 to 100" in axis.text_content()  # what comparisons are about comes first
    page.get_by_role("radio", name="Steps").check(force=True)
    assert "RL steps" in axis.text_content() and "budgets differ" not in axis.text_content()
    page.get_by_role("radio", name="USD").check(force=True)
    assert "USD for reflection" in axis.text_content()
    page.get_by_role("radio", name="Seconds").check(force=True)
    assert "training seconds" in axis.text_content()
    page.get_by_role("radio", name="Rollouts").check(force=True)
    assert "sampled rollouts" in axis.text_content()
    assert "100" in axis.text_content()


def test_drift_is_shown_a_token_or_a_completion(visit: Callable[..., Opened], report: str, tmp_path: Path) -> None:
    page = visit(report).page
    charts = [page.locator(f"#{chart} svg") for chart in ("chart-kl", "chart-drift")]
    assert all("nats a token" in chart.text_content() for chart in charts)
    page.get_by_role("radio", name="A completion").check(force=True)
    assert all("nats a completion" in chart.text_content() for chart in charts)
    page.locator("#chart-kl-button").click()
    assert page.locator("#chart-kl ~ div table tbody tr").nth(5).text_content() == "first1002.500"
    assert (
        page.locator(".figures div", has_text="the same, nats a completion").first.locator("dd").text_content()
        == "2.50"
    )

    older = make_run(tmp_path / "older")
    lines = [{k: v for k, v in metrics_line(at).items() if k != "kl/base_completion"} for at in range(3)]
    write_lines(older / "metrics.jsonl", lines)
    write([older], tmp_path / "older.html")
    page = visit((tmp_path / "older.html").as_uri()).page
    assert "nats a token" in page.locator("#chart-kl svg").text_content()
    assert not page.get_by_role("radio", name="A completion").is_visible()
    assert page.locator(".figures div", has_text="nats a completion").count() == 0


def test_a_series_can_be_hidden_and_a_chart_read_as_a_table(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    rows = page.locator("#chart-accuracy ~ div table tbody tr")
    page.locator("#chart-accuracy-button").click()
    assert rows.count() == 10
    assert rows.nth(5).text_content() == "first1000.800"
    toggle = page.locator(".legend button", has_text="second").first
    toggle.click()
    assert page.locator(".legend button", has_text="second").first.get_attribute("aria-pressed") == "false"
    assert rows.count() == 6


def test_the_tree_opens_a_prompt_and_shows_what_changed_and_why(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    items = page.locator("[role=treeitem]")
    assert items.count() == 3
    page.locator("[data-key=cccc] > .node").click()
    detail = page.locator("#prompt-detail")
    assert detail.locator(".removed").text_content() == "removed: Sort the items downwards."
    assert detail.locator(".added").text_content() == "added: Sort the items upwards, please."
    assert detail.locator("ins").all_text_contents() == ["upwards, please."]
    assert "Sort them." in detail.text_content()
    page.get_by_text("Show the whole text").click()
    assert detail.locator(".added").count() == 0
    page.locator("#prompts-shown").select_option("all")
    page.locator("[data-key=dddd] > .node").click()
    assert "not better (2 times)" in detail.text_content()


def test_the_grid_says_which_prompt_wins_where(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    assert page.locator("table.scores td.score").all_text_contents() == ["✓", "·", "·", "✓", "·", "·"]
    assert page.locator("table.scores td.only").count() == 2
    page.locator("table.scores td.score").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#grid-said").text_content().startswith("p1, prompt #2 cccc: reward 0")


def test_filters_filter(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    cards = page.locator("#samples-list article")
    assert cards.count() == 5
    for control, value, expected in (
        ("reward", "full", 2), ("reward", "part", 1), ("reward", "failed", 1), ("source", "gepa", 1),
        ("prompt", "aaaa", 1),
        ("run", "r1", 1),
    ):  # fmt: skip
        page.locator(f"#samples-{control}").select_option(value)
        assert cards.count() == expected, (control, value)
        page.locator("#samples-clear").click()
        assert cards.count() == 5
    page.locator("#samples-from").fill("2")
    page.locator("#samples-to").fill("2")
    assert cards.all_text_contents()[0].count("from the second run") == 1
    page.locator("#samples-clear").click()
    page.locator("#samples-text").fill("SORT THEM")
    assert cards.count() == 1
    assert page.locator("#samples-count").text_content().startswith("1 completion of 5")


CUT = {"turns": [{"messages": [], "text": "I never end", "tokens": 8, "forked": False}], "said": [], "tool_calls": 0}


def test_transcripts_show_turns_calls_results_forks_and_ends_and_are_filtered_by_their_end(
    visit: Callable[..., Opened], tmp_path: Path
) -> None:
    lines = [episode(), episode(**CUT, text="I never end", end="turn_tokens", reward=0.0), sample("one turn")]
    write([make_run(tmp_path / "run", samples={1: lines})], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri()).page
    cards = page.locator("#samples-list article")
    ended = page.locator("#samples-end")
    assert ended.locator("option").all_text_contents() == [
        "for any reason",
        "the environment ended it",
        "cut off: the last answer was too long",
    ]
    assert (cards.count(), page.locator(".transcript").count()) == (3, 2)
    ended.select_option("done")
    assert cards.count() == 1
    said = page.locator(".transcript > ol > li")
    assert said.locator(".who").all_text_contents() == [
        "the model",
        "result of a toolfailed call",
        "the modelforked",
        "the environment",
    ]
    assert said.locator("pre").all_text_contents()[1:] == ["The expression is not complete.", "It is 4.", "Well done."]
    assert page.locator(".calls code").all_text_contents() == ['calculator(expression="2*")']
    assert page.locator(".ending").text_content() == "Ended: the environment ended it."
    header = cards.locator("header").text_content()
    assert "2 turns" in header and "1 tool call" in header
    ended.select_option("turn_tokens")
    assert said.locator(".who").all_text_contents() == ["the modelcut off here"]
    assert page.locator(".ending.bad").count() == 1
    page.locator("#samples-clear").click()
    page.locator("#samples-text").fill("not complete")
    assert cards.count() == 1


def test_the_first_screen_has_the_finding_the_best_prompt_and_the_curve(
    visit: Callable[..., Opened], report: str
) -> None:
    page = visit(report, width=1400).page
    assert page.locator("h1").text_content().startswith("first reached 0.65 with KL 0.05; second 0.35")
    best = page.locator("#best-prompt")
    assert best.locator(".added").all_text_contents() == ["added: Sort the items downwards."]
    assert best.evaluate("element => element.getBoundingClientRect().bottom") < 800
    assert page.locator("#chart-first svg").count() == 1
    tab = page.evaluate("document.title")
    assert tab.startswith("first, second")


def test_any_metric_can_be_chosen_smoothed_and_drawn_on_a_log_axis(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    page.locator("#metric-name").select_option("reward/mean")
    page.locator("#chart-metric-button").click()
    rows = page.locator("#chart-metric ~ div table tbody tr")
    assert rows.all_text_contents()[:2] == ["first200.100", "first400.200"]
    assert "masked ones left out" in page.locator("#any-metric").text_content()
    page.locator("#metric-smooth").select_option("5")
    assert rows.all_text_contents()[:2] == ["first200.100", "first400.150"]
    page.locator("#chart-metric-button").click()
    page.locator("#any-metric").get_by_role("radio", name="Log").check(force=True)
    assert "no place on a log axis" in page.locator("#any-metric").text_content()
    assert page.locator("#chart-metric svg").count() == 1


def test_the_population_and_the_scores_stand_over_the_cycles(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    cells = page.locator("#population-cycles td.stay")
    assert cells.evaluate_all("all => all.map((each) => each.dataset.in)") == ["true", "false", "false", "true"] * 1 + [
        "false",
        "true",
    ]
    assert page.locator("#chart-candidates svg").count() == 1
    page.locator("#population-cycles button", has_text="cccc").click()
    assert "Sort the items upwards" in page.locator("#prompt-detail").text_content()


def test_samples_show_the_question_the_reference_and_the_prompt(visit: Callable[..., Opened], tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": HOSTILE}]
    lines = [sample("four", question=asked, reference=HOSTILE), sample("of an older run", problem="p2")]
    write([make_run(tmp_path / "run", samples={1: lines})], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri()).page
    assert page.evaluate("window.attacked") is None
    new = page.locator("#samples-list article").first
    assert new.locator("h4").all_text_contents()[-3:] == [
        "System message of the problem",
        "The question",
        "The model wrote",
    ]
    assert "</script><script>window.attacked" in new.locator(".reference code").text_content()
    new.locator("summary").click()
    assert "Sort the items downwards." in new.locator("details pre").text_content()
    page.locator("#samples-text").fill("be exact")
    assert page.locator("#samples-list article").count() == 1


def test_a_table_that_is_wider_than_the_page_says_so(visit: Callable[..., Opened], report: str) -> None:
    narrow, wide = visit(report, width=390).page, visit(report, width=1400).page
    assert narrow.locator("#costs .scroll-hint").is_visible()
    assert wide.locator("#costs .scroll-hint").is_hidden()


def test_without_episodes_there_is_no_filter_for_their_end(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    assert page.locator("label:has(#samples-end)").is_hidden()
    assert page.locator(".transcript").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_transcripts_are_text(visit: Callable[..., Opened], tmp_path: Path, scheme: str) -> None:
    call = '<tool_call>{"name": "<img src=x onerror=alert(1)>", "arguments": {"</script><b>": "<i>"}}</tool_call>'
    turns = [
        {"messages": [], "text": f"{HOSTILE} {call}", "tokens": 9, "forked": False},
        {"messages": [{"role": HOSTILE, "content": HOSTILE}], "text": HOSTILE, "tokens": 9, "forked": True},
    ]
    line = episode(turns=turns, said=[{"role": "tool", "content": HOSTILE}], tool_errors=[HOSTILE], end=HOSTILE)
    write([make_run(tmp_path / "run", samples={1: [line]})], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri(), scheme=scheme).page
    assert page.evaluate("window.attacked") is None
    assert page.locator(".transcript img, .transcript script, .transcript b, .transcript i").count() == 0
    for text in (*page.locator(".transcript pre").all_text_contents(), page.locator(".ending").text_content()):
        assert "</script><script>window.attacked" in text and "\u202e" not in text and "\x1b" not in text
    assert "<img src=x onerror=alert(1)>(</script><b>=" in page.locator(".calls code").text_content()


def test_everything_can_be_done_with_the_keyboard(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report).page
    reached = set()
    for _ in range(110):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('role') || ''"))
    assert {"theme", "chart-accuracy", "chart-accuracy-button", "prompts-shown", "treeitem", "samples-text"} <= reached
    page.locator("#chart-accuracy").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    said = page.locator("#chart-accuracy ~ [role=status]")
    assert said.text_content() == "first: accuracy 0.200 at sampled rollouts, the search's included 20"
    page.locator("[role=treeitem][tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[role=treeitem]").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('data-key')") == "cccc"
    assert "Sort the items upwards" in page.locator("#prompt-detail").text_content()


def test_hostile_text_does_nothing_and_shows_as_text(visit: Callable[..., Opened], tmp_path: Path) -> None:
    prompts = [
        candidate("aaaa", None, SEED),
        candidate("bbbb", "aaaa", {"system": HOSTILE}, feedback=[HOSTILE], reason=HOSTILE),
    ]
    run = make_run(
        tmp_path / "x<img src=x onerror=alert(1)>", samples={1: [sample(HOSTILE, feedback=HOSTILE)]}, candidates=prompts
    )
    write([run], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri()).page
    page.locator("#chart-accuracy").hover()
    assert page.evaluate("window.attacked") is None
    assert page.locator("main img, main script, main style, main iframe").count() == 0
    text = page.locator("#samples-list article > pre").text_content()
    assert text.startswith('</script><script>window.attacked = "script"; alert(1)</script><!-- <img')
    assert "␛[31mred␇ {{data}} ${7*7} &lt;b&gt; ⟨U+202E⟩gnp.exe" in text
    assert '<img src=x onerror="window.attacked' in page.locator("#prompt-detail").text_content()
    assert page.locator(".eyebrow").text_content() == "x<img src=x onerror=alert(1)>"


def test_narrow_light_and_dark(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report, width=360, scheme="dark").page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert colour(page) == "rgb(19, 20, 22)"
    page.emulate_media(color_scheme="light")
    assert colour(page) == "rgb(247, 246, 243)"
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("aria-label").startswith("Colour scheme: dark")
    assert colour(page) == "rgb(19, 20, 22)"


def test_a_long_name_in_a_list_widens_no_page(visit: Callable[..., Opened], tmp_path: Path) -> None:
    tasks = ("a" * 60, "b" * 60)
    write_lines(tmp_path / "compare.jsonl", [result_line(task, "fst", 0, [0, 0.5, 0.6]) for task in tasks])
    write([tmp_path / "compare.jsonl"], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri(), width=390).page
    assert page.locator("#curves-panel").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_filters_stand_in_one_row_below_the_search(visit: Callable[..., Opened], report: str) -> None:
    page = visit(report, width=1400).page
    bottoms = {name: sum(page.locator(f"#samples-{name}").bounding_box()[key] for key in ("y", "height"))
               for name in ("text", "reward", "from", "to", "clear")}  # fmt: skip
    assert bottoms["reward"] == bottoms["from"] == bottoms["to"] == bottoms["clear"] > bottoms["text"]


def test_an_experiment_shows_bands_and_tables(visit: Callable[..., Opened], tmp_path: Path) -> None:
    lines = [
        result_line(task, m, seed, [0, 0.5, 0.6 + seed / 10])
        for task in "ab"
        for m in ("rl", "fst")
        for seed in range(3)
    ]
    write_lines(tmp_path / "compare.jsonl", lines)
    write([tmp_path / "compare.jsonl"], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri()).page
    assert page.locator("#chart-accuracy svg path[fill-opacity='0.16']").count() == 2
    assert page.locator("#chart-reward").is_hidden()
    page.locator("#curves-panel").select_option(label="compare · b")
    page.locator("#chart-accuracy-button").click()
    assert "0.600 to 0.800" in page.locator("#chart-accuracy ~ div table").text_content()
    assert "0.700 (0.600 to 0.800)" in page.locator("#summary").text_content()


def test_a_run_without_evaluations_has_a_page(visit: Callable[..., Opened], tmp_path: Path) -> None:
    write([make_run(tmp_path / "run", evaluate=False, samples={})], tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri()).page
    assert page.locator("#verdict").text_content().startswith("No evaluation after the start")
    assert page.locator("#chart-reward svg").count() == 1
    assert page.locator("#samples-count").text_content().startswith("No completions were kept")


@contextmanager
def served(run: Path) -> Iterator[str]:
    with make_server([run], 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def test_a_live_page_follows_its_run_and_keeps_what_was_set(visit: Callable[..., Opened], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2, samples=SAMPLES)
    with served(run) as address:
        page = visit(address).page
        assert page.locator("#live").text_content() == "live"
        page.locator("#samples-reward").select_option("part")
        page.locator("[data-key=cccc] > .node").click()
        page.locator("#samples-text").fill("gamma")
        before = page.evaluate("document.querySelector('#samples').getBoundingClientRect().top")
        write_lines(run / "metrics.jsonl", [metrics_line(step) for step in range(6)])
        write_lines(run / "rollouts/step_5.jsonl", [sample("gamma again", reward=0.5)])
        page.get_by_text("gamma again").wait_for()
        assert "0.650" in page.locator("#summary").text_content()  # the mean of the last three evaluations
        assert page.locator("h1").text_content().startswith("After 5 of 100 steps: accuracy rose from 0.05 to 0.65")
        assert page.locator("#samples-list article").count() == 2
        assert page.locator("[data-key=cccc]").get_attribute("aria-selected") == "true"
        assert page.evaluate("document.activeElement.id") == "samples-text"
        assert abs(page.evaluate("document.querySelector('#samples').getBoundingClientRect().top") - before) < 40
        page.close()
