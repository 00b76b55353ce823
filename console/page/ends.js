// The connections that have ended, and why.
import { facts, openWith } from "./detail.js";
import { get } from "./net.js";
import { age, bytes, clock, fill, moment, plain, value } from "./show.js";
import { covered, opener, shown, table } from "./table.js";

const $ = (id) => document.getElementById(id);
let user = ""; // the filter
let older = null; // the ends that were requested, or null while the newest ones are shown
let after = "";

const meanings = {
  1000: "closed normally", 1001: "page closed", 1005: "closed without a code", 1006: "connection lost", 1008: "rule broken",
  1009: "message too large", 1012: "server restarts", 3000: "closed", 3001: "server shuts down", 3008: "reads too slowly", 3500: "removed",
};

const columns = [
  { head: true, set: (cell, e) => opener(cell, e.key, `End of connection ${plain(e.conn)}`, () => openEnd(e), clock(e.at)) },
  { set: (cell, e) => shown(cell, e.user ?? "") },
  { set: (cell, e) => shown(cell, why(e)) },
  { class: "wide", set: (cell, e) => fill(cell, plain(e.by)) },
  { class: "n wide", set: (cell, e) => fill(cell, age(e.at - e.since)) },
  { class: "n wide", set: (cell, e) => fill(cell, e.waiting ? bytes(e.waiting) : "–") },
];
const show = table("ends", columns, (e) => e.key);

/** Why a connection has ended, in a few words: what the peer or the host has said, or the code's meaning. */
const why = (e) => `${e.code} ${(e.code === lost ? "" : e.reason) || meanings[e.code] || ""}`.trim();
const lost = 1006;

/** Shows the newest ends, unless others are being looked at. */
export function showEnds(overview) {
  if (older || user) return;
  show(overview.ends);
  after = overview.ends.at(-1)?.key ?? "";
  $("ends-more").hidden = overview.ends.length < 15;
}

/** Requests the ends of the user in the filter, or of all, that are older than the last one. */
async function load(from) {
  const wanted = user;
  try {
    const page = await get("ends", { user, after: from });
    if (wanted !== user) return;
    const before = from ? (older ?? []) : [];
    older = [...before, ...page.rows];
    show(older);
    after = page.next;
    $("ends-more").hidden = !after;
    $("ends-note").textContent = plain(covered(page));
  } catch (failed) {
    $("ends-note").textContent = plain(failed.message);
  }
}

$("ends-filter").addEventListener("submit", (event) => {
  event.preventDefault();
  user = $("ends-user").value;
  older = null;
  load("");
});
$("ends-newest").addEventListener("click", () => {
  user = "";
  older = null;
  $("ends-user").value = "";
  $("ends-note").textContent = "";
  load("").then(() => (older = null));
});
$("ends-more").addEventListener("click", () => load(older ? after : ""));

function openEnd(e) {
  openWith("Ended", e.conn, facts([
    ["Code", `${e.code}${meanings[e.code] ? ` (${meanings[e.code]})` : ""}`],
    ["Reason", value(e.reason || "–")],
    ["Ended by", plain(e.by)],
    ["At", `${moment(e.at)} (after ${age(e.at - e.since)})`],
    ["User", value(e.user || "–")],
    ["Address", value(e.address || "–")],
    ["User agent", value(e.agent || "–")],
    ["Transport", value(e.transport)],
    ["Node", value(e.node, "code")],
    ["Waiting", e.waiting ? `${bytes(e.waiting)}, the first of them for ${e.oldest} ms` : "nothing"],
  ]));
}
