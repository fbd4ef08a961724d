// While the runs go on: asks the server that the page came from for what is new.

const EVERY_MS = 2000;

function follow(first, update) {
  const state = byId("live");
  state.hidden = false;
  let mark = first.mark;
  const say = (kind, text) => { if (state.textContent !== text) { state.dataset.state = kind; state.textContent = text; } };
  say("on", "live");
  async function ask() {
    try {
      const reply = await fetch(`data.json?mark=${encodeURIComponent(mark)}`, { cache: "no-store" });
      if (reply.status === 200) {
        const data = await reply.json();
        mark = data.mark;
        keepPlace(() => update(data));
      } else if (reply.status !== 204) throw new Error(String(reply.status));
      say("on", "live");
    } catch {
      say("lost", "not connected");
    }
    setTimeout(ask, EVERY_MS);
  }
  setTimeout(ask, EVERY_MS);
}

// What is at the top of the window stays there, whatever grows above it.
function keepPlace(change) {
  const anchor = [...document.querySelectorAll("main > section, .chart, .family, .sample")].find((element) => element.getBoundingClientRect().bottom > 90);
  const before = anchor ? anchor.getBoundingClientRect().top : 0;
  change();
  if (anchor && anchor.isConnected && window.scrollY > 0) window.scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
}
