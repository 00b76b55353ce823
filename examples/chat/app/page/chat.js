// A chat that uses pushy's client (window.Pushy, from /pushy/pushy.js), which reconnects
// and subscribes to the rooms again when the connection is lost.

const lobby = "lobby", lounge = "private-lounge";
const rooms = {
  [lobby]: { name: "Lobby", about: "Public: open to everyone" },
  [lounge]: { name: "Private lounge", about: "Private: you see who joins and leaves" },
};
const $ = (id) => document.getElementById(id);
const logs = {}; // by room
const past = {}; // by room: how many of the next lines are no news, because the page has just opened
const late = []; // notes that follow these lines
const following = {}; // by room: whether the log shows its newest entry, and keeps showing it
let me = JSON.parse(sessionStorage.getItem("me")); // {id, name}; each tab is another person
let current = lobby, countdown;

// The server may have been restarted and not know us any more: log in before each attempt.
const pushy = new Pushy(async () => {
  try {
    await login(me.name);
  } catch (error) {
    if (error.status < 500) welcome(error.body);
    throw error;
  }
  return `/pushy?id=${me.id}`;
}, async (channel, connection_id) => (await post("/auth", { channel, connection_id })).json());

pushy
  .on("state", ({ state, retryAt, code }) => {
    clearInterval(countdown);
    if (state === "connecting") show(pushy.transport ? "Reconnecting…" : "Connecting…", "wait");
    if (state === "closed" && !$("chat").hidden) show(`Disconnected (${code})`, "off");
    if (state !== "waiting") return;
    const seconds = () => show(`Reconnecting… ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`, "off");
    seconds();
    countdown = setInterval(seconds, 1000);
  })
  .on("connect", () => problem(""))
  .on("pushy:error", ({ message }) => problem(message));

for (const room of [lobby, lounge]) {
  // A newcomer gets the last 50 lines, as events. Later the client gets what it missed.
  pushy.channel(room, { rewind: 50 })
    .on("message", ({ from, time, text }) => bubble(room, from, time, element("p", "text", text)))
    .on("roll", ({ from, time, dice }) => {
      const faces = dice.map((n) => Object.assign(element("span", `die d${n}`), { role: "img", ariaLabel: n }));
      bubble(room, from, time, element("p", "dice", ...faces, element("span", "sum", `rolled ${dice[0] + dice[1]}`)));
    })
    .on("announcement", ({ from, text }) => {
      const title = element("strong", "", `Announcement requested by ${from.name}`);
      append(room, element("div", "announcement", title, element("p", "", text)));
    })
    .on("subscribe", (members, { recovered, replay }) => {
      show("Connected", "on");
      past[room] = recovered ? 0 : replay ?? 0;
      if (past[room]) logs[room].replaceChildren(); // the last 50 lines follow, not only what is missing
    })
    .on("pushy:gap", () => append(room, element("p", "note", "The server has lost earlier messages.")))
    .on("subscribe-error", (reason) => problem(room === lounge ? "You cannot enter the lounge." : reason));
}
// Everybody joins both rooms on entering. Only the lounge is private and has members, so its list
// is also the list of who is online.
pushy.channel(lounge)
  .on("subscribe", (members, { resumed }) => peopleChanged(resumed ? "" : "You joined")) // or nobody noticed that we were away
  .on("pushy:member-added", ({ name }) => peopleChanged(`${name} joined`))
  .on("pushy:member-quit", ({ name }) => peopleChanged(`${name} left`));

function send(command, data) {
  problem(pushy.connected ? "" : "Not connected. Try again in a moment.");
  if (!pushy.connected) return false;
  pushy.exec(command, data); // the answer is an event in the room, or a pushy:error
  return true;
}

async function post(path, fields = {}) {
  const response = await fetch(`${path}?id=${me?.id ?? ""}`, { method: "POST", body: new URLSearchParams(fields) });
  if (response.ok) return response;
  const body = (await response.text()).trim();
  throw Object.assign(new Error(body), { status: response.status, body });
}

async function login(name) {
  me = await (await post("/login", { name })).json();
  sessionStorage.setItem("me", JSON.stringify(me));
}

// What other users wrote becomes text nodes, never HTML.
function element(tag, className, ...content) {
  const node = Object.assign(document.createElement(tag), { className });
  node.append(...content);
  return node;
}

function avatar(name) {
  const face = element("span", "avatar", [...name][0].toUpperCase());
  let hue = 7;
  for (const c of name) hue = (hue * 31 + c.codePointAt(0)) % 360;
  face.style.setProperty("--hue", hue);
  face.ariaHidden = "true";
  return face;
}

function bubble(channel, from, at, content) {
  const time = element("time", "", new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  const head = element("div", "head", element("strong", "", from.name), time);
  const entry = element("article", "entry", avatar(from.name), head, element("div", "bubble", content));
  entry.classList.toggle("mine", from.id === me.id);
  entry.classList.toggle("more", logs[channel].lastElementChild?.dataset.from === from.id); // by the same person
  entry.dataset.from = from.id;
  append(channel, entry);
}

function append(channel, entry) {
  const log = logs[channel];
  log.append(entry);
  if (log.childElementCount > 500) log.firstElementChild.remove();
  const note = entry.classList.contains("note");
  if (channel !== current && !note && !past[channel]) unread(channel, 1);
  if (following[channel] || entry.classList.contains("mine")) log.scrollTop = log.scrollHeight;
  if (past[channel] && !note && !--past[channel] && channel === lounge) late.splice(0).forEach(noteInLounge);
}

function unread(channel, more) {
  const badge = document.querySelector(`[data-room="${channel}"] .unread`);
  badge.textContent = more && Number(badge.textContent) + more;
  badge.hidden = !more;
}

function peopleChanged(how) {
  if (how) past[lounge] ? late.push(how) : noteInLounge(how);
  const { members } = pushy.channel(lounge);
  $("count").textContent = members.size;
  $("people").replaceChildren(...[...members.values()].map(({ id, name }) =>
    element("li", "", avatar(name), element("span", "", id === me.id ? `${name} (you)` : name))));
}

function noteInLounge(text) {
  append(lounge, element("p", "note", text));
}

function open(room) {
  current = room;
  for (const [name, log] of Object.entries(logs)) log.hidden = name !== room;
  for (const button of document.querySelectorAll("[data-room]")) button.ariaCurrent = button.dataset.room === room;
  $("room-name").textContent = rooms[room].name;
  $("room-about").textContent = rooms[room].about;
  $("text").placeholder = `Message the ${room === lobby ? "lobby" : "lounge"}`;
  $("announce").hidden = room !== lobby;
  unread(room, 0);
  following[room] = true;
  logs[room].scrollTop = logs[room].scrollHeight;
}

function show(text, how) {
  $("state").textContent = text;
  $("state").dataset.how = how;
}

function problem(text) {
  $("problem").textContent = text;
}

function welcome(text) {
  pushy.disconnect();
  $("chat").hidden = true;
  $("welcome").hidden = false;
  $("login-problem").textContent = text;
  $("name").focus();
}

function enter() {
  if (!$("chat").hidden) return; // a second click
  $("welcome").hidden = true;
  $("chat").hidden = false;
  $("my-name").textContent = me.name;
  $("my-avatar").replaceChildren(avatar(me.name));
  $("text").focus();
  for (const room of [lobby, lounge]) pushy.channel(room).subscribe();
  pushy.connect();
}

for (const room of [lobby, lounge]) {
  logs[room] = Object.assign(element("div", "log"), { role: "log", ariaLabel: rooms[room].name, tabIndex: 0 });
  $("logs").append(logs[room]);
  following[room] = true;
  const log = logs[room];
  const sizeNow = () => `${log.clientWidth} ${log.clientHeight}`;
  let size;
  log.addEventListener("scroll", () => {
    if (sizeNow() !== size) return; // the log was resized, and the observer has not run yet
    following[room] = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  });
  // A phone's keyboard, or an error below the log, makes the log smaller.
  new ResizeObserver(() => {
    size = sizeNow();
    if (following[room]) log.scrollTop = log.scrollHeight;
  }).observe(log);
}
for (const button of document.querySelectorAll("[data-room]")) {
  button.onclick = () => open(button.dataset.room);
}
$("login").onsubmit = (event) => {
  event.preventDefault();
  login($("name").value).then(enter, (error) => welcome(error.message));
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && send("say", { channel: current, text })) $("text").value = "";
};
$("roll").onclick = () => send("roll", { channel: current });
$("kill")?.addEventListener("click", () => post("/kill").catch(() => {})); // it does not live to answer
$("announce").onclick = () => post("/announce").then(() => problem(""), (error) => problem(error.message));

open(lobby);
if (me) enter();
