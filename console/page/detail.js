// What is shown of one channel or one connection.
import { connActs, publishForm, removeAct } from "./acts.js";
import { get } from "./net.js";
import { age, brief, bytes, make, moment, number, plain, plural, value } from "./show.js";
import { pages } from "./table.js";
import { watching } from "./watch.js";

const $ = (id) => document.getElementById(id);
const dialog = $("detail");
let opened = 0; // the number of the detail that is shown, so that a late answer for another one is not

$("detail-close").addEventListener("click", () => dialog.close());
// A click beside the dialog is one on the dialog itself.
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => {
  opened++;
  $("detail-body").replaceChildren();
});

/** Shows the dialog with a title, and returns whether it still shows that later. */
export function openWith(kind, name, ...children) {
  const mine = ++opened;
  $("detail-title").replaceChildren(`${kind} `, value(name));
  $("detail-body").replaceChildren(...children);
  if (!dialog.open) dialog.showModal();
  $("detail-body").scrollTop = 0;
  return () => mine === opened;
}

const link = (text, label, click) => make("button", { type: "button", class: "open", "aria-label": label, title: plain(text), click }, value(text));

const connLink = (c) => make("button", {
  type: "button", class: "open", title: plain(c.id), "aria-label": `Connection ${plain(c.id)}`, click: () => openConn(c.id),
}, value(brief(c.id)));

/** Returns the connections of a query, page by page. */
export const connPages = (query) => pages("connections", query,
  [["Connection"], ["User"], ["Node", "wide code"], ["Age", "n wide"], ["Waiting", "n"]],
  (c) => [connLink(c), value(c.user ?? ""), value(brief(c.node)), age(Date.now() - c.since), c.waiting ? bytes(c.waiting) : "–"],
  "There is no such connection.");

/** Returns the channels with a prefix, page by page. */
export const channelPages = (prefix) => pages("channels", { prefix }, [["Channel"], ["Subscribers", "n"], ["Presence", "wide"]],
  (ch) => [
    link(ch.name, `Channel ${plain(ch.name)}`, () => openChannel(ch.name)), number(ch.subscribers), ch.presence ? "yes" : "",
  ],
  "No such channel has subscribers.");

export function openChannel(name) {
  const members = make("div");
  openWith("Channel", name,
    make("section", {}, make("h3", {}, "Connections"), connPages({ channel: name })),
    members, publishForm(name));
  // Options.Channel can make any channel private, so the server is asked.
  const list = pages("members", { channel: name }, [["Member"], ["User"], ["Data"]],
    (m) => [value(brief(m.id)), value(m.user ?? ""), value(m.data, "data")], "It has no members.",
    (page) => (members.hidden = !!page.public));
  members.replaceChildren(make("section", {}, make("h3", {}, "Members"), list));
}

export async function openConn(id) {
  const shown = openWith("Connection", id, make("p", { class: "note", role: "status" }, "Searching…"));
  let found;
  try {
    found = await get("connection", { conn: id });
  } catch (failed) {
    if (shown()) $("detail-body").replaceChildren(make("p", { class: "note" }, value(failed.message)));
    return;
  }
  if (!shown()) return;
  const c = found.conn;
  if (!c) {
    const missing = found.silentCount ? `, and ${plural(found.silentCount, "node")} did not answer` : "";
    $("detail-body").replaceChildren(make("p", { class: "note" }, `No node has this connection${missing}.`));
    return;
  }
  $("detail-body").replaceChildren(facts([
    ["User", c.user ? value(c.user) : "–"],
    ["Address", value(c.address || "–")],
    ["User agent", value(c.agent || "–")],
    ["Transport", value(c.transport)],
    ["Node", value(c.node, "code")],
    ["Since", `${moment(c.since)} (${age(Date.now() - c.since)})`],
    ["Waiting", bytes(c.waiting)],
  ]), connActs(c), make("section", {}, make("h3", {}, plural(c.count, "channel")), channelList(c)), watching(c.id, shown));
}

function channelList(c) {
  const items = c.channels.map((name) => make("li", {}, link(name, `Channel ${plain(name)}`, () => openChannel(name)),
    ...removeAct(c, name, `Remove from ${plain(name)}`)));
  const rest = c.count - c.channels.length;
  return make("div", {}, make("ul", { class: "channels" }, ...items), rest ? make("p", { class: "note" }, `and ${number(rest)} more`) : "");
}

/** Returns a list of names and values. */
export const facts = (all) => make("dl", {}, ...all.flatMap(([name, what]) => [make("dt", {}, name), make("dd", {}, what)]));
