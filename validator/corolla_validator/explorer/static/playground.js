// A question to the network: its route, its text and its price as they come.

import { el } from "./dom.js";
import { account, amount } from "./format.js";

export function startPlayground(panel, playground) {
  if (!playground.available) {
    panel.replaceChildren(
      el("p", {}, "No gateway is set up for this explorer."),
      el("p", { class: "note" }, "Who runs it can start one and name it:"),
      el("pre", { tabindex: "0" }, "corolla gateway\nvalidator explorer --gateway http://127.0.0.1:8000 --gateway-key-file key.txt"),
    );
    return;
  }
  const text = el("textarea", { id: "prompt", rows: "3", maxlength: "500", required: true }, "What grows in a garden?");
  const send = el("button", { type: "submit", class: "primary" }, "Ask");
  const route = el("ol", { class: "route", "aria-label": "Route" });
  const answer = el("p", { class: "answer", "aria-live": "polite" });
  const price = el("p", { class: "note", id: "price" });
  const form = el("form", {}, el("label", { for: "prompt" }, `Ask the network (up to ${playground.most_tokens} tokens, paid for by who runs this page)`), text, send);
  panel.replaceChildren(form, route, answer, price);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    route.replaceChildren();
    answer.textContent = price.textContent = "";
    try {
      await ask(text.value, new Showing(route, answer, price));
    } catch {
      price.textContent = "The explorer does not answer.";
    } finally {
      send.disabled = false;
    }
  });
}

class Showing {
  constructor(route, answer, price) {
    Object.assign(this, { routeList: route, answer, priceLine: price, pieces: 0, each: null });
  }

  route({ where, hops, price_per_token }) {
    this.each = price_per_token === null ? null : Number(price_per_token);
    const shown = hops.map((hop) => el("li", {}, el("span", { class: "blocks" }, `${hop.start}–${hop.end - 1}`), account(hop.account)));
    this.routeList.replaceChildren(...(shown.length ? shown : [el("li", {}, where || "route not told")]));
    this.running();
  }

  text(piece) {
    this.pieces += 1;
    this.answer.append(piece);
    this.running();
  }

  running() {
    if (this.each !== null) this.priceLine.textContent = `about ${Number((this.pieces * this.each).toPrecision(3))} NECT so far, ${this.each} a token`;
  }

  cost({ tokens, cost }) {
    if (cost !== null) this.priceLine.replaceChildren(`${tokens} tokens for `, amount(cost), " NECT, the prompt included");
  }

  failed(why) {
    this.priceLine.textContent = `It did not work: ${why}`;
  }

  done() {}
}

async function ask(prompt, showing) {
  const answer = await fetch("api/playground", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ prompt }) });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    return showing.failed(typeof problem.detail === "string" ? problem.detail : answer.statusText);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) tell(event, showing);
  }
}

function tell(event, showing) {
  const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
  if (["route", "text", "cost", "failed", "done"].includes(fields.event)) showing[fields.event](JSON.parse(fields.data ?? "null"));
}
