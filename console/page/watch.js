// What the server decides about one connection, while it is being watched.
import { get, post } from "./net.js";
import { bytes, clock, make, value } from "./show.js";
import { covered } from "./table.js";

const interval = 2000;

/** Returns the part of the details of a connection that watches it. shown says whether it is visible. */
export function watching(id, shown) {
  const said = make("p", { class: "note", role: "status" },
    "Records the last 32 messages, events and decisions of this connection, for 5 minutes.");
  const payloads = make("input", { type: "checkbox", id: "payloads" });
  const body = make("tbody");
  const heads = [["Time", "time"], ["What", "by"], ["Details"]].map(([text, name]) => make("th", { scope: "col", class: name }, text));
  const list = make("table", { hidden: true }, make("thead", {}, make("tr", {}, ...heads)), body);
  const start = make("button", { type: "button", click: begin }, "Watch");
  let timer;

  async function begin() {
    start.disabled = true;
    try {
      const outcome = await post("watch", { conn: id, payloads: payloads.checked });
      said.replaceChildren(value(outcome.done ? "Watching…" : covered(outcome) || "The connection has ended."));
      if (outcome.done) await refresh();
    } catch (failed) {
      said.replaceChildren(value(failed.message));
    }
    start.disabled = false;
  }

  async function refresh() {
    clearTimeout(timer);
    if (!shown()) return;
    try {
      const record = document.visibilityState === "visible" ? await get("decisions", { conn: id }) : null;
      if (record) show(record);
      if (record && !record.until) return;
    } catch (failed) {
      said.replaceChildren(value(failed.message));
    }
    timer = setTimeout(refresh, interval);
  }

  function show(record) {
    if (!record.until) {
      if (list.hidden) return;
      said.replaceChildren("The five minutes are over; what is below was recorded before.");
      return;
    }
    said.replaceChildren(record.error ? value(record.error) : `Watching until ${clock(record.until)}${record.payloads ? ", with payloads" : ""}.`);
    list.hidden = record.rows.length === 0;
    body.replaceChildren(...record.rows.map((d) => make("tr", {},
      make("td", {}, clock(d.at)), make("td", {}, value(d.kind)), make("td", {}, details(d)))));
  }

  refresh(); // it can be watched already
  return make("section", {}, make("h3", {}, "Watch"),
    make("div", { class: "watch" }, start, make("label", {}, payloads, " with payloads")), said, list);
}

function details(d) {
  const parts = [d.name && value(d.name, "name"), d.channel && value(d.channel), d.code && value(d.code), d.reason && value(d.reason),
    d.bytes ? bytes(d.bytes) : ""].filter(Boolean);
  const line = make("div");
  parts.forEach((part, i) => line.append(...(i ? [" · ", part] : [part])));
  return d.data ? make("div", {}, line, value(d.data, "data")) : line;
}
