// The page of a player. The server applies the rules; this script shows its boards and
// sends moves.
const size = 10;
const goal = 10;
const room = "private-arena";
const pace = 100; // milliseconds between moves while a key is held; longer than the server requires

const $ = (id) => document.getElementById(id);
const make = (tag, className) => Object.assign(document.createElement(tag), { className });

// A tab remains the same player when it is reloaded.
const key = sessionStorage.key_ ??= crypto.randomUUID?.() ?? Array.from(
  crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
$("name").value = sessionStorage.name_ ?? "";

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  sessionStorage.name_ = name;
  $("welcome").hidden = true;
  $("game").hidden = false;
  play(name);
  document.activeElement?.blur(); // the keys are for the board now
});
if (sessionStorage.name_) $("join").requestSubmit();

function play(name) {
  const who = new URLSearchParams({ key, name });
  const pushy = new Pushy(`/pushy?${who}`, `/auth?${who}`);
  const arena = pushy.channel(room);
  let board = { turn: -1, players: [], gems: [] };
  let me; // our player's id, from presence

  pushy.on("state", ({ state }) => {
    const words = { connecting: "Connecting…", connected: "Connected", waiting: "Reconnecting…", closed: "Disconnected" };
    $("state").textContent = words[state] ?? "";
    $("game").dataset.state = state;
  });
  arena.on("subscribe", async () => {
    me = arena.members.get(arena.memberId)?.id;
    // Events report changes. The state before, and changes while we were disconnected, are fetched.
    board = { turn: -1, players: [], gems: [] };
    show(await pushy.exec("look"));
  });
  for (const event of ["pushy:member-added", "pushy:member-quit"]) arena.on(event, draw);
  arena.on("board", show);
  arena.on("subscribe-error", (reason) => say(`You cannot join: ${reason}`));
  arena.subscribe();

  function show(next) {
    if (next.turn < board.turn) return; // this answer arrived after a newer event
    board = next;
    draw();
    if (next.winner) cheer(next.winner);
  }

  // Each piece on the board keeps its element for as long as it exists, so that CSS can
  // animate its moves.
  const pieces = new Map();
  function piece(id, { x, y }, create) {
    let element = pieces.get(id);
    if (!element) {
      element = create();
      pieces.set(id, element);
      $("board").append(element);
    }
    element.style.setProperty("--x", x);
    element.style.setProperty("--y", y);
    return element;
  }

  const person = (id) => [...arena.members.values()].find((member) => member.id === id);

  function draw() {
    const there = new Set();
    for (const gem of board.gems) {
      const id = `gem ${gem.x} ${gem.y}`;
      there.add(id);
      piece(id, gem, () => make("div", "gem"));
    }
    for (const player of board.players) {
      const { name = "", hue = 0 } = person(player.id) ?? {};
      there.add(player.id);
      const token = piece(player.id, player, () => make("div", "player"));
      token.textContent = [...name][0]?.toUpperCase() ?? "";
      token.title = name;
      token.classList.toggle("mine", player.id === me);
      token.style.setProperty("--hue", hue);
    }
    for (const [id, element] of pieces) {
      if (there.has(id)) continue;
      pieces.delete(id);
      element.classList.add("gone");
      setTimeout(() => element.remove(), 200);
    }
    const rows = [...board.players].sort((a, b) => b.score - a.score).map((player) => {
      const { name = "…", hue = 0 } = person(player.id) ?? {};
      const row = make("li", player.id === me ? "mine" : "");
      row.style.setProperty("--hue", hue);
      row.style.setProperty("--part", player.score / goal);
      const label = make("span", "name");
      label.textContent = player.id === me ? `${name} (you)` : name;
      const count = make("strong", "score");
      count.textContent = player.score;
      row.append(label, count);
      return row;
    });
    $("scores").replaceChildren(...rows);
  }

  function cheer(winner) {
    say(winner === me ? "You win this round!" : `${person(winner)?.name ?? "Somebody"} wins this round!`);
  }

  let hush;
  function say(text) {
    clearTimeout(hush);
    $("banner").textContent = text;
    hush = setTimeout(() => { $("banner").textContent = ""; }, 3000);
  }

  // Moves are sent one at a time. While one is in progress, only the last request is kept.
  let wanted;
  let busy = false;
  async function move(to) {
    wanted = to;
    if (busy) return;
    busy = true;
    while (wanted) {
      const next = wanted;
      wanted = undefined;
      const rest = new Promise((done) => setTimeout(done, pace));
      try {
        await pushy.exec("move", { to: next }, { offline: "reject" });
      } catch (error) {
        if (error.code === "no-way") pieces.get(me)?.animate?.({ scale: [1, 0.8, 1] }, 150);
        else if (error.code === "too-fast") wanted ??= next; // the move before was delayed on its way, and this one was not
        else if (error.code === "offline") say("Not connected. Wait a moment.");
        else say(error.message);
      }
      await rest;
    }
    busy = false;
  }

  const keys = {
    ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right",
    KeyW: "up", KeyS: "down", KeyA: "left", KeyD: "right",
  };
  addEventListener("keydown", (event) => {
    const to = keys[event.code];
    if (!to || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(to);
  });
  for (const button of document.querySelectorAll("[data-to]")) {
    let again;
    const stop = () => clearInterval(again);
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      move(button.dataset.to);
      stop();
      again = setInterval(() => move(button.dataset.to), pace);
    });
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, stop);
    button.addEventListener("click", (event) => {
      if (event.detail === 0) move(button.dataset.to); // by keyboard
    });
  }
  // A swipe on the board moves, too, once for each square that it goes.
  let from;
  const square = () => $("board").clientWidth / size;
  $("board").addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY }; });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const dx = event.clientX - from.x;
    const dy = event.clientY - from.y;
    if (Math.max(Math.abs(dx), Math.abs(dy)) < square()) return;
    from = { x: event.clientX, y: event.clientY };
    if (Math.abs(dx) > Math.abs(dy)) move(dx > 0 ? "right" : "left");
    else move(dy > 0 ? "down" : "up");
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { from = undefined; });
}
