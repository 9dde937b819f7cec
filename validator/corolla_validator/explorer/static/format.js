// Values as people read them.

import { el } from "./dom.js";

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

export const short = (hash) => `${hash.slice(0, 8)}…${hash.slice(-4)}`;
export const span = (blocks) => (blocks ? `${blocks.start}–${blocks.end - 1}` : "–");
export const percent = (part) => (part === null ? "–" : `${(100 * part).toFixed(1)} %`);

// Tokens: exact in the title, four significant digits to look at. The exact text is never made a float first.
export function amount(text) {
  const value = Number(text);
  let shown = text;
  if (text.length > 9) shown = value >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : String(Number(value.toPrecision(4)));
  return el("span", { class: "amount", title: `${text} NECT` }, shown);
}

export function ago(at) {
  const made = el("time", { datetime: new Date(at * 1000).toISOString(), title: new Date(at * 1000).toLocaleString(), "data-at": at });
  made.textContent = sinceText(at);
  return made;
}

export function refreshTimes() {
  for (const time of document.querySelectorAll("time[data-at]")) {
    const text = sinceText(Number(time.dataset.at));
    if (time.textContent !== text) time.textContent = text;
  }
}

function sinceText(at) {
  const seconds = Math.round(at - Date.now() / 1000);
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return relative.format(Math.trunc(seconds / size), unit);
}

export const account = (address) => el("span", { class: "hash", title: address }, short(address));

export const pill = (state, words = state) => el("span", { class: "pill", "data-state": state }, words);

// A transaction: a link where the operator said to where, else its hash.
export function transaction(place, txUrl) {
  if (!place) return "–";
  const where = `block ${place.block}`;
  if (!place.tx) return where;
  const hash = txUrl
    ? el("a", { href: txUrl + place.tx, class: "hash", rel: "noopener noreferrer", title: place.tx }, short(place.tx))
    : el("span", { class: "hash", title: place.tx }, short(place.tx));
  return el("span", {}, hash, ` ${where}`);
}
