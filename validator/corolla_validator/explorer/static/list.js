// A table that fills itself and turns its pages. On a phone each line becomes a card: see style.css.

import { el, reconcile } from "./dom.js";

const PAGE = 50;

export class List {
  // `columns`: [heading, cell(item), class]. `onTurn` is called when another page is wanted.
  constructor(panel, { label, columns, keyOf, empty, onTurn }) {
    this.offset = 0;
    this.columns = columns;
    this.keyOf = keyOf;
    this.onTurn = onTurn;
    this.body = el("tbody", { role: "rowgroup" });
    const heads = columns.map(([name, , kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, name));
    const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads));
    this.table = el("table", { role: "table", "aria-label": label, hidden: true }, head, this.body);
    this.empty = el("p", { class: "empty" }, empty);
    this.newer = el("button", { type: "button", on: { click: () => this.turn(-PAGE) } }, "Previous");
    this.older = el("button", { type: "button", on: { click: () => this.turn(PAGE) } }, "Next");
    this.place = el("span", { role: "status" });
    this.pager = el("div", { class: "pager", hidden: true }, this.newer, this.place, this.older);
    panel.append(this.table, this.empty, this.pager);
  }

  get query() {
    return `offset=${this.offset}&limit=${PAGE}`;
  }

  turn(by) {
    this.offset = Math.max(0, this.offset + by);
    this.onTurn();
  }

  show({ total, offset, items }) {
    if (offset > 0 && offset >= total) return this.turn(-offset);
    reconcile(this.body, items, this.keyOf, (item) => this.row(item));
    this.table.hidden = total === 0;
    this.empty.hidden = total > 0;
    this.pager.hidden = total <= PAGE;
    this.newer.disabled = offset === 0;
    this.older.disabled = offset + PAGE >= total;
    this.place.textContent = `${offset + 1}–${offset + items.length} of ${total}`;
  }

  row(item) {
    const cells = this.columns.map(([name, cell, kind]) => el("td", { role: "cell", class: kind, "data-label": name }, cell(item)));
    return el("tr", { role: "row", "data-key": this.keyOf(item), "data-state": item.state ?? item.outcome }, ...cells);
  }
}
