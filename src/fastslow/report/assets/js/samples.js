// 4. Sample completions and transcripts of episodes, with filters.

const AT_ONCE = 30;
const REWARDS = { "": "any reward", full: "full reward (1)", part: "between 0 and 1", zero: "none (0)", failed: "could not be scored" };
const SPEAKERS = { policy: "the model", user: "the environment", tool: "result of a tool", system: "system" };
const MARKS = { forked: ["forked", "the chat template renders what was said before in another way: this turn has a context of its own"],
  error: ["failed call", "what a tool answered to a call that failed"], cut: ["cut off here", "sampling.max_tokens was reached"] };

function samplesSection(root) {
  const state = { run: "", reward: "", source: "", prompt: "", end: "", from: "", to: "", text: "", shown: AT_ONCE };
  let data = null;
  const set = (name) => (value) => { state[name] = value; state.shown = AT_ONCE; redraw(); };
  const redraw = () => update(data);
  const runs = select("samples-run", "Run", (value) => { state.prompt = ""; set("run")(value); });
  const reward = select("samples-reward", "Reward", set("reward"));
  const source = select("samples-source", "Sampled by", set("source"));
  const prompt = select("samples-prompt", "Prompt", set("prompt"));
  const end = select("samples-end", "Ended", set("end"));
  const typed = (name, properties, label) => h("label", { class: "field" }, label, h("input", { id: `samples-${name}`, oninput: (event) => set(name)(event.target.value), ...properties }));
  const count = h("p", { class: "note", role: "status", id: "samples-count" });
  const list = h("div", { class: "samples", id: "samples-list" });
  const more = h("button", { type: "button", class: "more", id: "samples-more", onclick: () => { state.shown += AT_ONCE; redraw(); } });
  const clear = h("button", { type: "button", class: "quiet", id: "samples-clear", onclick: clearAll }, "Clear filters");
  const controls = h("div", { class: "controls" }, typed("text", { type: "search", placeholder: "in question, completion or feedback" }, "Search"), runs, reward, source, prompt, end,
    typed("from", { type: "number", min: 0 }, "From step"), typed("to", { type: "number", min: 0 }, "To step"), clear);
  root.append(sectionHead("samples", "Sample completions", "The question, what the model wrote, what it got for it, and what the verifier said. Newest first."), controls, count, list, more);

  function clearAll() {
    Object.assign(state, { run: "", reward: "", source: "", prompt: "", end: "", from: "", to: "", text: "", shown: AT_ONCE });
    for (const name of ["text", "from", "to"]) byId(`samples-${name}`).value = "";
    redraw();
  }
  let drawn = "";
  function update(found) {
    data = found;
    const withSamples = data.runs.filter((run) => run.samples.length);
    const all = withSamples.filter((run) => !state.run || run.id === state.run).flatMap((run) => run.samples.map((row) => sampleOf(run, row))).sort((a, b) => b.step - a.step);
    const unique = (name) => [...new Set(all.map((each) => each[name]))].filter(Boolean);
    runs.update([["", "all runs"], ...withSamples.map((run) => [run.id, run.name])], state.run);
    runs.hidden = withSamples.length < 2;
    reward.update(Object.entries(REWARDS), state.reward);
    source.update([["", "either side"], ...unique("source").map((name) => [name, { rl: "RL", gepa: "the prompt search" }[name] || name])], state.source);
    prompt.update([["", "any prompt"], ...unique("prompt").map((hash) => [hash, hash])], state.prompt);
    end.update([["", "for any reason"], ...unique("end").map((name) => [name, data.ends[name] || name])], state.end);
    const chosen = all.filter((each) => matches(each, state));
    const left = withSamples.reduce((sum, run) => sum + (run.left_out.samples || 0), 0);
    controls.hidden = !withSamples.length;
    count.textContent = !withSamples.length ? "No completions were kept (rollout_samples in the config says how many a step)."
      : `${plural(chosen.length, "completion")} of ${number(all.length)} kept.${left ? ` ${number(left)} more were left out, evenly, to keep the page small.` : ""}`;
    const shown = chosen.slice(0, state.shown);
    more.hidden = shown.length >= chosen.length;
    more.textContent = `Show ${number(Math.min(AT_ONCE, chosen.length - shown.length))} more`;
    const now = JSON.stringify(shown);
    if (now === drawn) return;
    drawn = now;
    const focused = keyOfFocus(list);
    list.replaceChildren(...shown.map((each) => sampleCard(each, withSamples.length > 1, data.ends)));
    refocus(list, focused);
  }
  return { update };
}

function sampleOf(run, [step, problem, prompt, text, reward, feedback, failure, finish, source, end, said, toolCalls, question, reference]) {
  return { run: run.name, step, problem, prompt, text, reward, feedback, failure, finish, source, end, said, toolCalls, question: question || [], reference, components: textsOf(run, prompt) };
}

// The text of a prompt, wherever the page has it; null where it was left out.
const texts = new WeakMap();

function textsOf(run, hash) {
  if (!texts.has(run)) texts.set(run, new Map([...run.prompts.map((node) => [node.hash, node.components]), ...Object.entries(run.texts)]));
  return texts.get(run).get(hash) || null;
}

function matches(each, state) {
  const kind = each.reward === null ? "failed" : each.reward >= 1 ? "full" : each.reward > 0 ? "part" : "zero";
  if (state.reward && kind !== state.reward) return false;
  if (state.source && each.source !== state.source) return false;
  if (state.end && each.end !== state.end) return false;
  if (state.prompt && each.prompt !== state.prompt) return false;
  if (state.from !== "" && each.step < Number(state.from)) return false;
  if (state.to !== "" && each.step > Number(state.to)) return false;
  const sought = state.text.trim().toLowerCase();
  return !sought || [each.text, each.feedback, each.problem, each.reference, ...each.question.map((row) => row[1]), ...(each.said || []).map((row) => row[1])].some((text) => String(text).toLowerCase().includes(sought));
}

function sampleCard(each, named, ends) {
  const failed = each.reward === null;
  const kind = failed ? "bad" : each.reward >= 1 ? "good" : each.reward > 0 ? "here" : "bad";
  const label = failed ? "not scored" : `${each.reward >= 1 ? "✓ " : each.reward > 0 ? "" : "✗ "}reward ${short(each.reward)}`;
  return h("article", { class: "sample card" },
    h("header", null, h("span", { class: `badge ${kind}` }, label), named ? h("span", null, each.run) : null, h("span", null, `step ${each.step}`),
      h("span", null, { rl: "sampled for RL", gepa: "sampled by the prompt search" }[each.source] || each.source),
      h("span", null, "problem ", h("code", null, String(each.problem))), h("span", null, "prompt ", h("code", null, String(each.prompt))),
      each.said ? null : each.finish === "length" ? h("span", { class: "badge bad" }, "cut off") : null,
      each.said ? episodeBadges(each) : null),
    question(each), each.said ? transcript(each, ends) : [each.question.length ? h("h4", { class: "part" }, "The model wrote") : null, wordsOf(each.text)],
    each.reference ? h("p", { class: "reference" }, h("span", { class: "part" }, "Reference answer"), h("code", null, each.reference)) : null,
    each.feedback || each.failure ? h("p", { class: "words soft" }, each.failure || each.feedback) : null);
}

// What was asked, and the prompt that stood before it, folded.
function question({ question: rows, components }) {
  const asked = rows.map(([speaker, text]) => [h("h4", { class: "part" }, { user: "The question", system: "System message of the problem" }[speaker] || speaker), wordsOf(text)]);
  const prompt = components ? h("details", { class: "prompt-text" }, h("summary", null, "The prompt"), Object.entries(components).map(([name, text]) => [Object.keys(components).length > 1 ? h("h4", { class: "part" }, name) : null, wordsOf(text)])) : null;
  return [prompt, asked];
}

const wordsOf = (text) => h("pre", { tabindex: text.length > 1200 ? "0" : null }, text === "" ? h("span", { class: "soft" }, "(empty)") : text);

function episodeBadges({ said, toolCalls }) {
  const turns = said.filter(([speaker]) => speaker === "policy").length;
  return [h("span", null, plural(turns, "turn")), toolCalls ? h("span", null, plural(toolCalls, "tool call")) : null];
}

// Who said what, and why it ended. Everything in it is a text node.
function transcript(each, ends) {
  const rows = each.said.map(([speaker, text, calls, mark]) => h("li", { class: speaker === "policy" ? "policy" : "other" },
    h("p", { class: "who" }, SPEAKERS[speaker] || speaker, mark ? h("span", { class: mark === "forked" ? "badge here" : "badge bad", title: MARKS[mark][1] }, MARKS[mark][0]) : null),
    wordsOf(text), calls.length ? h("ul", { class: "calls" }, calls.map((call) => h("li", null, "calls ", h("code", null, call)))) : null));
  return [h("div", { class: "transcript", tabindex: "0", role: "region", "aria-label": `what was said about ${each.problem}` }, h("ol", null, rows)),
    h("p", { class: each.end === "done" ? "ending soft" : "ending bad" }, `Ended: ${ends[each.end] || each.end}.`)];
}
