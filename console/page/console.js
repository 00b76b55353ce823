// The console: it requests the figures of all nodes every 2 s, as long as the page is visible.
import { channelPages, connPages, openChannel, openConn } from "./detail.js";
import { showEnds } from "./ends.js";
import { get, page } from "./net.js";
import { age, brief, byteRate, bytes, clock, fill, make, number, plain, plural, rate, spark, value } from "./show.js";
import { opener, shown, table } from "./table.js";

const $ = (id) => document.getElementById(id);
const interval = 2000;

let last; // the last overview
let lastAt = 0; // when it came

// --- totals ---

const tiles = [ // in pairs, because a phone shows two in a row
  ["Connections", (o) => o.totals.connections, number],
  ["Published / s", (o) => o.totals.rates?.published, rate],
  ["Messages in / s", (o) => o.totals.rates?.messagesIn, rate],
  ["Messages out / s", (o) => o.totals.rates?.messagesOut, rate],
  ["Bytes waiting", (o) => o.totals.waiting, bytes],
  ["Memory", (o) => o.totals.memory, bytes],
  ["Bytes in / s", (o) => o.totals.rates?.bytesIn, byteRate],
  ["Bytes out / s", (o) => o.totals.rates?.bytesOut, byteRate],
  ["Ended / s", (o) => o.totals.rates?.ended, rate],
  ["Refused / s", (o) => o.totals.rates?.refused, rate],
].map(([name, figure, text]) => {
  const shown = make("output", {}, "–");
  const line = spark();
  $("totals").append(make("div", { class: "tile" }, make("h3", {}, name), shown, line.svg));
  return { text, figure, shown, line };
});

// --- tables ---

function waiting(cell, n, first) {
  fill(cell, n ? bytes(n) : "–");
  cell.classList.toggle("some", n > 0);
  cell.style.setProperty("--part", `${first ? Math.round((100 * n) / first) : 0}%`);
}

const most = { channels: 0, conns: 0 }; // the bytes that wait in the first row
const channelColumns = [
  {
    head: true,
    set: (cell, ch) => opener(cell, ch.name, `Channel ${plain(ch.name)}`, () => openChannel(ch.name)),
  },
  { class: "n", set: (cell, ch) => fill(cell, number(ch.subscribers)) },
  { class: "n bar", set: (cell, ch) => waiting(cell, ch.waiting, most.channels) },
];
const showChannels = table("channels", channelColumns, (ch) => ch.name);

const connLabel = (c) => `Connection ${plain(c.id)}${c.user ? ` of user ${plain(c.user)}` : ""}`;
const connColumns = [
  {
    head: true,
    set: (cell, c) => opener(cell, c.id, connLabel(c), () => openConn(c.id), brief(c.id)),
  },
  { set: (cell, c) => shown(cell, c.user ?? "") },
  { class: "wide code", set: (cell, c) => fill(cell, brief(plain(c.node))) },
  { class: "n wide", set: (cell, c) => fill(cell, age(Date.now() - c.since)) },
  { class: "n bar", set: (cell, c) => waiting(cell, c.waiting, most.conns) },
];
const showConns = table("conns", connColumns, (c) => c.id);

const nodeColumns = [
  {
    head: true,
    class: "code",
    set: (cell, n, row) => {
      row.classList.toggle("bad", !n.at || !!n.away);
      fill(cell, make("span", { title: plain(n.node) }, brief(plain(n.node))), n.self ? " (this one)" : "", trouble(n));
    },
  },
  { class: "n", set: (cell, n) => fill(cell, n.at ? number(n.connections) : "–") },
  { class: "n wide", set: (cell, n) => fill(cell, n.at ? number(n.channels) : "–") },
  { class: "n", set: (cell, n) => fill(cell, rate(n.rates?.published)) },
  { class: "n wide", set: (cell, n) => fill(cell, rate(n.rates?.messagesIn)) },
  { class: "n wide", set: (cell, n) => fill(cell, rate(n.rates?.messagesOut)) },
  { class: "n", set: (cell, n) => fill(cell, n.at ? bytes(n.waiting) : "–") },
  {
    class: "n wide",
    set: (cell, n) => fill(cell, !n.at ? "–" : n.memoryLimit ? `${bytes(n.memory)} of ${bytes(n.memoryLimit)}` : bytes(n.memory)),
  },
];
const showNodes = table("nodes", nodeColumns, (n) => n.node);

function trouble(n) {
  const why = n.silent ? "silent" : n.error || (n.away ? `broker away: ${n.away}` : "");
  return why ? make("span", { class: "why" }, value(why)) : "";
}

// --- the overview ---

function show(o) {
  document.body.classList.toggle("readonly", o.readOnly);
  page.readOnly = o.readOnly;
  fill($("who"), value(o.who), o.readOnly ? make("span", { class: "badge" }, "read only") : "");
  for (const tile of tiles) {
    fill(tile.shown, tile.text(tile.figure(o)));
    tile.line.add(tile.figure(o));
  }
  most.channels = o.channels[0]?.waiting;
  most.conns = o.conns[0]?.waiting;
  showChannels(o.channels);
  showConns(o.conns);
  showNodes(o.nodes);
  showEnds(o);
  last = o;
  lastAt = Date.now();
}

/** Says how the figures are, in one line. */
function state(failed) {
  const bar = $("state");
  let text, kind;
  if (failed) {
    kind = "bad";
    text = lastAt ? `No answer since ${clock(lastAt)}` : "No answer";
  } else if (last.silentCount) {
    kind = "bad";
    text = `${plural(last.nodeCount, "node")}, ${last.silentCount} silent`;
  } else {
    kind = last.error ? "bad" : "good";
    text = plural(last.nodeCount, "node");
  }
  if (bar.textContent !== text) bar.textContent = text;
  bar.className = kind;
  const why = failed?.message ?? last?.error ?? "";
  $("trouble").hidden = !why;
  if (why) fill($("trouble"), value(why));
  document.body.classList.toggle("old", !!failed);
}

let timer;
let pulling = false;

async function pull() {
  clearTimeout(timer);
  if (pulling || document.visibilityState !== "visible") return;
  pulling = true;
  try {
    show(await get("data"));
    state();
  } catch (failed) {
    state(failed);
  }
  pulling = false;
  timer = setTimeout(pull, interval);
}

document.addEventListener("visibilitychange", pull);
pull();

// --- search ---

const hints = { channel: "Name begins with…", user: "User id", conn: "Connection id" };
$("by").addEventListener("change", () => ($("query").placeholder = hints[$("by").value]));
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search($("by").value, $("query").value.trim());
});
$("found-close").addEventListener("click", () => {
  $("found").hidden = true;
  $("query").focus();
});

/** Shows the first results of a search. */
function search(by, query) {
  if (by === "conn") return query ? openConn(query) : $("query").focus();
  if (by === "user" && !query) return $("query").focus();
  const title = by === "user" ? "Connections of user " : query ? "Channels that begin with " : "All channels";
  fill($("found-title"), title, query ? value(query) : "");
  $("found-rows").replaceChildren(by === "user" ? connPages({ user: query }) : channelPages(query));
  $("found").hidden = false;
  $("found").focus();
}
