import assert from "node:assert/strict";
import { build, desktop, launch, look, open, patience, phone, start } from "./example.mjs";
import { after, before, test } from "./suite.mjs";

const limit = { timeout: 5 * patience };
let browser;

before(async () => {
  build("./examples/game");
  browser = await launch();
}, limit);
after(() => browser?.close());

async function join(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Play" }).click();
  await page.locator("#scores").getByText(`${name} (you)`).waitFor();
}

// board returns the positions of everything that a page shows.
const board = (page) => page.evaluate(() => {
  const at = (piece) => ({ x: Number(piece.style.getPropertyValue("--x")), y: Number(piece.style.getPropertyValue("--y")) });
  return {
    players: Object.fromEntries([...document.querySelectorAll(".player:not(.gone)")].map((p) => [p.title, at(p)])),
    gems: [...document.querySelectorAll(".gem:not(.gone)")].map(at),
    scores: Object.fromEntries([...document.querySelectorAll("#scores li")].map((row) => [
      row.querySelector(".name").textContent.replace(" (you)", ""), Number(row.querySelector(".score").textContent)])),
  };
});

// until waits until a condition holds for what a page shows.
async function until(page, what, holds) {
  for (const end = Date.now() + patience; Date.now() < end;) {
    const now = await board(page);
    if (holds(now)) return now;
    await page.waitForTimeout(20);
  }
  assert.fail(`${what}: ${JSON.stringify(await board(page))}`);
}

// step moves a player by one square with press, and waits until the page shows it.
async function step(page, name, press, to) {
  const before = (await board(page)).players[name];
  await press(to);
  await until(page, `${name} does not move ${to}`, ({ players }) => JSON.stringify(players[name]) !== JSON.stringify(before));
}

// way returns the first step of a shortest path to a gem, around the other players.
function way({ players, gems }, name) {
  const square = ({ x, y }) => `${x} ${y}`;
  const goals = new Set(gems.map(square));
  const seen = new Set(Object.values(players).map(square));
  const queue = [players[name]];
  for (const from of queue) {
    for (const [to, [dx, dy]] of Object.entries({ right: [1, 0], left: [-1, 0], down: [0, 1], up: [0, -1] })) {
      const next = { x: from.x + dx, y: from.y + dy, first: from.first ?? to };
      if (goals.has(square(next))) return next.first;
      if (next.x < 0 || next.y < 0 || next.x > 9 || next.y > 9 || seen.has(square(next))) continue;
      seen.add(square(next));
      queue.push(next);
    }
  }
  assert.fail(`${name} cannot reach a gem`);
}

test("two players on one board", limit, async (t) => {
  const { origin, stop } = await start();
  t.after(stop);
  const ada = await open(browser, origin, desktop);
  const grace = await open(browser, origin, phone);
  await look({ desktop: ada, phone: grace }, "game-welcome");
  await join(ada, "Ada");
  await join(grace, "Grace");
  const both = ({ players, gems }) => Object.keys(players).length === 2 && gems.length === 6;
  assert.deepEqual(await until(ada, "Grace does not come", both), await until(grace, "Ada is not there", both));

  // Ada uses the keyboard, and Grace the touch screen: both pick up gems.
  const players = [
    { page: ada, name: "Ada", press: (to) => ada.keyboard.press(`Arrow${to[0].toUpperCase()}${to.slice(1)}`) },
    { page: grace, name: "Grace", press: (to) => grace.locator(`.pad [data-to=${to}]`).tap() },
  ];
  for (const [{ page, name, press }, gems] of [[players[0], 3], [players[1], 2]]) {
    while ((await board(page)).scores[name] < gems) await step(page, name, press, way(await board(page), name));
  }
  for (const { page } of players) {
    await until(page, "the scores are not shown", ({ scores }) => scores.Ada === 3 && scores.Grace === 2);
  }
  await look({ desktop: ada, phone: grace }, "game");

  // Ten gems win, and a new round begins.
  for (;;) {
    const now = await board(ada);
    if (now.scores.Ada === 9) break;
    await step(ada, "Ada", players[0].press, way(now, "Ada"));
  }
  while ((await board(ada)).scores.Ada === 9) await step(ada, "Ada", players[0].press, way(await board(ada), "Ada"));
  await ada.hasShown("You win this round!");
  await grace.hasShown("Ada wins this round!");
  await until(grace, "no new round", ({ scores }) => scores.Ada === 0 && scores.Grace === 0);
  await look({ desktop: ada, phone: grace }, "game-won");

  await grace.close();
  await until(ada, "Grace does not go", ({ players, scores }) => !players.Grace && !("Grace" in scores));
  assert.deepEqual(ada.wrong, []);
  assert.deepEqual(grace.wrong, []);
});

test("a player who returns keeps the name and the score", limit, async (t) => {
  const { origin, stop } = await start();
  t.after(stop);
  const ada = await open(browser, origin, desktop);
  await join(ada, "Ada");
  const press = (to) => ada.keyboard.press(`Arrow${to[0].toUpperCase()}${to.slice(1)}`);
  await until(ada, "there is no board", ({ players, gems }) => players.Ada && gems.length === 6);
  while ((await board(ada)).scores.Ada < 1) await step(ada, "Ada", press, way(await board(ada), "Ada"));
  await ada.reload();
  await until(ada, "the score is lost", ({ scores }) => scores.Ada === 1);
  assert.deepEqual(ada.wrong, []);
});

test("the game continues after a restart of the server", limit, async (t) => {
  const first = await start();
  const ada = await open(browser, first.origin, phone);
  await join(ada, "Ada");
  await until(ada, "there is no board", ({ gems }) => gems.length === 6);
  await first.stop();
  await ada.hasShown("Reconnecting…");
  await ada.locator(".pad [data-to=up]").tap();
  await ada.hasShown("Not connected. Wait a moment.");
  await look({ phone: ada }, "game-away");
  const second = await start(new URL(first.origin).host);
  t.after(() => second.stop());
  await ada.getByRole("status").getByText("Connected").waitFor();
  await until(ada, "there is no new board", ({ players, gems }) => players.Ada && gems.length === 6);
  const { players } = await board(ada);
  await step(ada, "Ada", (to) => ada.locator(`.pad [data-to=${to}]`).tap(), players.Ada.x < 5 ? "right" : "left");
});
