// What this page needs of pushy, and no more: one bare WebSocket, two rooms.

const lobby = "lobby", lounge = "private-lounge";
const rooms = {
  [lobby]: { name: "Lobby", about: "Public: everyone hears you" },
  [lounge]: { name: "Private lounge", about: "Private: you see who comes and goes" },
};
const $ = (id) => document.getElementById(id);
const people = new Map(); // who is in the lounge, by memberId
const logs = {}; // by room
let me = JSON.parse(sessionStorage.getItem("me")); // {id, name}, a person of their own in each tab
let socket, current = lobby, attempts = 0;

async function connect() {
  state("Connecting…", "wait");
  try {
    await login(me.name); // the server may have been restarted, and know nobody
  } catch (error) {
    return error.refused ? welcome(error.message) : retry();
  }
  const ws = socket = new WebSocket(`${location.origin.replace("http", "ws")}/pushy/socket/websocket?id=${me.id}`);
  ws.onmessage = (message) => {
    const { event, channel, data } = JSON.parse(message.data);
    if (Object.hasOwn(handlers, event)) handlers[event](data, channel, ws);
  };
  ws.onclose = ({ code }) => {
    const again = [1001, 1006, 1012, 1013].includes(code) || (code >= 3000 && code < 3500);
    if (again) retry();
    else state(`Disconnected (${code})`, "off");
  };
}

function retry() {
  const seconds = Math.min(2 ** attempts++, 10) * (0.5 + Math.random() / 2);
  state("Reconnecting…", "off");
  setTimeout(connect, seconds * 1000);
}

function send(command, data, ws = socket) {
  if (ws?.readyState !== WebSocket.OPEN) return problem("Not connected. Try again in a moment.");
  problem("");
  ws.send(JSON.stringify({ command, data }));
  return true;
}

async function post(path, fields = {}) {
  const response = await fetch(`${path}?id=${me?.id ?? ""}`, { method: "POST", body: new URLSearchParams(fields) });
  if (response.ok) return response;
  throw Object.assign(new Error((await response.text()).trim()), { refused: response.status < 500 });
}

async function login(name) {
  me = await (await post("/login", { name })).json();
  sessionStorage.setItem("me", JSON.stringify(me));
}

const handlers = {
  async "pushy:connect"({ socketId }, _, ws) {
    attempts = 0;
    send("subscribe", { channel: lobby }, ws);
    try {
      const token = await (await post("/auth", { channel: lounge, connection_id: socketId })).json();
      send("subscribe", { channel: lounge, ...token }, ws); // {auth, data}
    } catch {
      problem("The lounge is closed to you.");
    }
  },
  "pushy:subscription-success"({ channel, presence }) {
    state("Connected", "on");
    if (channel !== lounge) return;
    people.clear();
    for (const member of presence) people.set(member.memberId, member);
    peopleChanged("You joined");
  },
  "pushy:presence-add"({ member }) {
    people.set(member.memberId, member);
    peopleChanged(`${member.name} joined`);
  },
  "pushy:presence-quit"({ member }) {
    people.delete(member.memberId);
    peopleChanged(`${member.name} left`);
  },
  "pushy:subscription-failed": ({ reason }) => problem(reason),
  "pushy:error": ({ message }) => problem(message),
  message: ({ from, text }, channel) => bubble(channel, from, element("p", "text", text)),
  roll({ from, dice }, channel) {
    const faces = dice.map((n) => Object.assign(element("span", `die d${n}`), { role: "img", ariaLabel: n }));
    bubble(channel, from, element("p", "dice", ...faces, element("span", "sum", `rolled ${dice[0] + dice[1]}`)));
  },
  announcement({ from, text }, channel) {
    const title = element("strong", "", `Announcement, asked for by ${from.name}`);
    append(channel, element("div", "announcement", title, element("p", "", text)));
  },
};

// What others wrote becomes text nodes, never HTML.
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

function bubble(channel, from, content) {
  const time = element("time", "", new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  const head = element("div", "head", element("strong", "", from.name), time);
  const entry = element("article", "entry", avatar(from.name), head, element("div", "bubble", content));
  entry.classList.toggle("mine", from.id === me.id);
  entry.classList.toggle("more", logs[channel].lastElementChild?.dataset.from === from.id); // of the same
  entry.dataset.from = from.id;
  append(channel, entry);
}

function append(channel, entry) {
  const log = logs[channel];
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(entry);
  if (log.childElementCount > 500) log.firstElementChild.remove();
  if (channel !== current) unread(channel, 1);
  if (atEnd || entry.classList.contains("mine")) log.scrollTop = log.scrollHeight;
}

function unread(channel, more) {
  const badge = document.querySelector(`[data-room="${channel}"] .unread`);
  badge.textContent = more && Number(badge.textContent) + more;
  badge.hidden = !more;
}

function peopleChanged(how) {
  append(lounge, element("p", "note", how));
  $("count").textContent = people.size;
  $("people").replaceChildren(...[...people.values()].map(({ id, name }) =>
    element("li", "", avatar(name), element("span", "", id === me.id ? `${name} (you)` : name))));
}

function open(room) {
  current = room;
  for (const [name, log] of Object.entries(logs)) log.hidden = name !== room;
  for (const button of document.querySelectorAll("[data-room]")) button.ariaCurrent = button.dataset.room === room;
  $("room-name").textContent = rooms[room].name;
  $("room-about").textContent = rooms[room].about;
  $("text").placeholder = `Message the ${rooms[room].name.toLowerCase()}`;
  $("announce").hidden = room !== lobby;
  unread(room, 0);
  logs[room].scrollTop = logs[room].scrollHeight;
}

function state(text, how) {
  $("state").textContent = text;
  $("state").dataset.how = how;
}

function problem(text) {
  $("problem").textContent = text;
}

function welcome(text = "") {
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
  connect();
}

for (const room of [lobby, lounge]) {
  logs[room] = Object.assign(element("div", "log"), { role: "log", ariaLabel: rooms[room].name, tabIndex: 0 });
  $("logs").append(logs[room]);
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
$("announce").onclick = () => post("/announce").then(() => problem(""), (error) => problem(error.message));

open(lobby);
if (me) enter();
