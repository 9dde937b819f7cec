// Elements from values. Text is always text: nothing that a peer said is ever parsed as HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) made.style.setProperty(key, v);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const FOCUSABLE = "a[href], button, summary, input, textarea";

// Make `parent` hold an element for each item, touching only what changed, so that focus and selection stay.
export function reconcile(parent, items, keyOf, build) {
  const known = parent.known ?? (parent.known = new Map());
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item), text = JSON.stringify(item);
    wanted.add(key);
    let entry = known.get(key);
    if (!entry || entry.text !== text) {
      const made = build(item);
      if (entry) {
        if (place === entry.element) place = made;
        exchange(entry.element, made);
      }
      known.set(key, (entry = { text, element: made }));
    }
    if (entry.element === place) place = place.nextElementSibling;
    else parent.insertBefore(entry.element, place);
  }
  for (const [key, entry] of known) {
    if (wanted.has(key)) continue;
    entry.element.remove();
    known.delete(key);
  }
}

function exchange(old, made) {
  const focused = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  old.replaceWith(made);
  if (focused >= 0) made.querySelectorAll(FOCUSABLE)[focused]?.focus();
}

export function setText(id, text) {
  const found = document.getElementById(id);
  if (found.textContent !== text) found.textContent = text;
}
