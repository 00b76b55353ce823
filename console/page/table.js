// Tables: those that are shown again with each answer, and those with pages.
import { get } from "./net.js";
import { make, plain, plural, value } from "./show.js";

const $ = (id) => document.getElementById(id);

/** The number of rows of a table that is folded; console.css hides the others. */
const unfolded = 12;

/**
 * Shows rows in a table. While the pointer or the focus is in it, the rows stay where they are, so
 * that nobody opens another row than the one that they have read.
 */
export function table(id, columns, key) {
  const body = $(id).tBodies[0];
  const note = $(`${id}-held`);
  const empty = $(id).parentElement.querySelector(".empty");
  const rows = new Map();
  const all = $(`${id}-all`);
  all?.addEventListener("click", () => fold(!$(id).classList.contains("folded")));
  function fold(folded) {
    $(id).classList.toggle("folded", folded);
    all.hidden = rows.size <= unfolded;
    all.setAttribute("aria-expanded", String(!folded));
    all.textContent = folded ? `Show all ${rows.size}` : `Show ${unfolded}`;
  }
  return (items) => {
    const held = body.matches(":hover") || body.contains(document.activeElement);
    const present = new Map(items.map((item) => [key(item), item]));
    const order = held ? [...new Set([...rows.keys(), ...present.keys()])] : [...present.keys()];
    for (const [k, row] of rows) {
      if (!order.includes(k)) {
        row.remove();
        rows.delete(k);
      }
    }
    for (const k of order) {
      let row = rows.get(k);
      if (!row) {
        row = make("tr", {}, ...columns.map((c) => make(c.head ? "th" : "td", { class: c.class, scope: c.head && "row" })));
        rows.set(k, row);
      }
      const item = present.get(k);
      row.classList.toggle("gone", !item);
      if (item) columns.forEach((c, i) => c.set(row.cells[i], item, row));
    }
    const wanted = order.map((k) => rows.get(k));
    if (!held) {
      wanted.forEach((row, i) => body.rows[i] !== row && body.insertBefore(row, body.rows[i] ?? null));
    } else {
      wanted.forEach((row) => row.parentElement || body.append(row));
    }
    if (note) note.textContent = held ? "order held" : "";
    if (empty) empty.hidden = order.length > 0;
    $(id).hidden = order.length === 0 && !!empty;
    if (all) fold($(id).classList.contains("folded"));
  };
}

const of = new WeakMap(); // what a cell shows, so that it is not made again

/** Sets a cell to a button that opens something, once. */
export function opener(cell, key, label, open, text = key) {
  if (of.get(cell) === key) return;
  of.set(cell, key);
  cell.replaceChildren(make("button", { type: "button", class: "open", title: plain(key), "aria-label": label, click: open }, value(text)));
}

/** Sets a cell to a value of somebody's choice, with all of it as the tooltip. */
export function shown(cell, text) {
  if (of.get(cell) === text) return;
  of.set(cell, text);
  cell.title = plain(text);
  cell.replaceChildren(value(text));
}

/**
 * Returns a list of rows that are requested a page at a time. columns are their titles, and cells
 * returns the cells of an item. none is what is said if there are none, and inform gets each page.
 */
export function pages(path, query, columns, cells, none, inform) {
  const body = make("tbody");
  const note = make("p", { class: "note", role: "status" }, "Searching…");
  const more = make("button", { type: "button", class: "more", hidden: true, click: () => load() }, "More");
  const heads = columns.map(([title, name]) => make("th", { scope: "col", class: name }, title));
  const list = make("table", { hidden: true }, make("thead", {}, make("tr", {}, ...heads)), body);
  let after = "";
  async function load() {
    more.disabled = true;
    try {
      const page = await get(path, { ...query, after });
      inform?.(page);
      for (const item of page.rows) {
        body.append(make("tr", {}, ...cells(item).map((cell, i) => make("td", { class: columns[i][1] }, cell))));
      }
      after = page.next;
      more.hidden = !after;
      list.hidden = body.rows.length === 0;
      note.replaceChildren(value(covered(page) || (body.rows.length ? "" : none)));
    } catch (failed) {
      note.replaceChildren(value(failed.message));
    }
    more.disabled = false;
  }
  load();
  return make("div", {}, list, note, more);
}

/** Says what is missing from an answer, or "". */
export function covered(answer) {
  if (answer.error) return answer.error;
  const silent = answer.silent?.length ?? 0;
  return silent ? `${plural(silent, "node")} did not answer, so rows can be missing: ${answer.silent.join(", ")}` : "";
}
