// Takes screenshots of the chat in Chromium and Firefox while its server, which is behind Redis,
// is killed with SIGKILL and started again: node strip.mjs DIRECTORY. It fails if a line is lost
// or if somebody seems to have left.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { enter, line, log, person, say } from "./chat.mjs";
import { binary, build, desktop, launch, launchFirefox, open, patience, startRedis } from "./example.mjs";

const out = path.resolve(process.argv[2] ?? mkdtempSync(path.join(tmpdir(), "pushy-strip-")));
mkdirSync(out, { recursive: true });

// serve starts one node of examples/cluster as the example itself does, and returns its process.
async function serve(name, addr, redis) {
  const node = { Name: name, Addr: addr, Redis: redis, Secret: "a secret of the strip" };
  const child = spawn(binary, { env: { ...process.env, PUSHY_CLUSTER_NODE: JSON.stringify(node) }, stdio: ["pipe", "pipe", "inherit"] });
  const [text] = await once(createInterface({ input: child.stdout }), "line");
  return { child, origin: text.match(/^open (.*)\/$/)[1] };
}

// A person without a page, who talks on another node.
async function talk(origin, name, lines) {
  const login = await fetch(`${origin}/login`, { method: "POST", body: new URLSearchParams({ name }) });
  const { id } = await login.json();
  const socket = new WebSocket(`${origin.replace("http", "ws")}/pushy/socket/websocket?id=${id}`, {
    headers: { Cookie: login.headers.get("set-cookie").split(";")[0] },
  });
  const heard = [];
  const wait = async (event) => {
    while (heard.shift() !== event) if (!heard.length) await once(socket, "message");
  };
  socket.on("message", (text) => heard.push(JSON.parse(text).event));
  const send = (command, data) => socket.send(JSON.stringify({ command, data: { channel: "lobby", ...data } }));
  await wait("pushy:connect");
  send("subscribe");
  await wait("pushy:subscription-success");
  for (const text of lines) {
    send("say", { text });
    await wait("message");
  }
  socket.close(1000);
}

build("./examples/cluster");
const redis = await startRedis();
let one = await serve("node 1", "127.0.0.1:0", redis.address);
const two = await serve("node 2", "127.0.0.1:0", redis.address);
const chromium = await launch();
const firefox = await launchFirefox({ defaultViewport: desktop.viewport });
try {
  const ada = await open(chromium, one.origin, desktop);
  await enter(ada, "Ada");
  const grace = await firefox.newPage();
  grace.setDefaultTimeout(patience);
  await grace.goto(one.origin);
  await grace.type("#name", "Grace");
  await grace.click("#login .primary");
  const shows = (selector, text) => grace.waitForFunction((selector, text) =>
    [...document.querySelectorAll(selector)].some((node) => node.textContent.startsWith(text)), {}, selector, text);
  await shows("#people li span", "Grace (you)");
  await person(ada, "Grace").waitFor();
  await say(ada, "Good morning from Chromium");
  await shows(".log:not([hidden]) .text", "Good morning");
  await grace.type("#text", "And from Firefox");
  await grace.keyboard.press("Enter");
  await line(ada, "And from Firefox").waitFor();

  const pictures = [];
  const look = async (name) => {
    for (const [who, page] of [["chromium", ada], ["firefox", grace]]) {
      pictures.push(path.join(out, `${name}-${who}.png`));
      await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)));
      await page.screenshot({ path: pictures.at(-1) });
    }
  };
  await look("1-before");

  one.child.kill("SIGKILL");
  const killed = Date.now();
  await once(one.child, "exit");
  await talk(two.origin, "Edsger", ["node 1 is dead. This is node 2.", "You are both away, and nobody left.", "You will read this."]);
  await ada.getByRole("status").getByText("Reconnecting…").waitFor();
  await shows("#state", "Reconnecting…");
  await look("2-away");
  one = await serve("node 1", new URL(one.origin).host, redis.address);
  const away = (Date.now() - killed) / 1000;

  await ada.getByRole("status").getByText("Connected").waitFor();
  await shows("#state", "Connected");
  await line(ada, "You will read this.").waitFor();
  await shows(".log:not([hidden]) .text", "You will read this.");
  await say(ada, "Nothing was lost");
  await shows(".log:not([hidden]) .text", "Nothing was lost");
  await look("3-after");

  const texts = ["Good morning from Chromium", "And from Firefox", "node 1 is dead. This is node 2.", "You are both away, and nobody left.", "You will read this.", "Nothing was lost"];
  assert.deepEqual(await log(ada).locator(".text").allTextContents(), texts);
  assert.deepEqual(await grace.$$eval(".log:not([hidden]) .text", (nodes) => nodes.map((node) => node.textContent)), texts);
  const notes = (page) => page.evaluate(() => [...document.querySelectorAll(".note")].map((node) => node.textContent));
  assert.deepEqual(await notes(ada), ["You joined", "Grace joined"]);
  assert.deepEqual(await notes(grace), ["You joined"]);
  // All in one picture: a row for each browser.
  const strip = await chromium.newPage({ viewport: { width: 1920, height: 800 } });
  const image = (file) => `<img width="640" src="data:image/png;base64,${readFileSync(file).toString("base64")}">`;
  const row = (browser) => pictures.filter((file) => file.endsWith(`-${browser}.png`)).map(image).join("");
  await strip.setContent(`<body style="margin:0;display:grid;grid-template-columns:repeat(3,640px)">${row("chromium")}${row("firefox")}`);
  pictures.push(path.join(out, "strip.png"));
  await strip.screenshot({ path: pictures.at(-1) });
  console.log(`the server was away for ${away.toFixed(1)} s; no line was lost, and nobody left`);
  console.log(pictures.join("\n"));
} finally {
  await Promise.allSettled([chromium.close(), firefox.close()]);
  for (const { child } of [one, two]) {
    child.stdin.end();
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
  await redis.stop();
}
