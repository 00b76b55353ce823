// Streams behind nginx, with buffering and gzip on and with HTTP/1.0 or 1.1 to the server, and HAProxy.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { EventSource } from "eventsource";
import { patience } from "./example.mjs";
import { breakOften, buildSite, startSite, until } from "./ssesite.mjs";

const limit = { timeout: 5 * patience };
const own = mkdtempSync(path.join(tmpdir(), "pushy-proxies-"));
const proxies = [];
let site;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// run starts a proxy, and waits until it answers.
async function run(name, port, config, args) {
  const file = path.join(own, `${name}.conf`);
  writeFileSync(file, config);
  const child = spawn(name.split("-")[0], args(file), { stdio: ["ignore", "inherit", "inherit"] });
  proxies.push(child);
  const origin = `http://127.0.0.1:${port}`;
  await until(() => fetch(`${origin}/`).then(() => true, () => false), `${name} does not start`, Boolean);
  return origin;
}

const nginx = (version) => async () => {
  const port = await freePort();
  return run(`nginx-${version}`, port, `
    daemon off; pid ${own}/nginx-${version}.pid; error_log stderr; worker_processes 1;
    events {}
    http {
      access_log off; gzip on; gzip_types text/event-stream; proxy_buffering on;
      client_body_temp_path ${own}; proxy_temp_path ${own}; fastcgi_temp_path ${own}; uwsgi_temp_path ${own}; scgi_temp_path ${own};
      server { listen 127.0.0.1:${port}; location / { proxy_pass ${site.origin}; proxy_http_version ${version}; proxy_set_header Host $http_host; proxy_set_header Connection ""; } }
    }`, (file) => ["-c", file]);
};

async function haproxy() {
  const port = await freePort();
  return run("haproxy", port, `
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend in
  bind 127.0.0.1:${port}
  default_backend out
backend out
  server one ${new URL(site.origin).host}
`, (file) => ["-f", file]);
}

before(async () => {
  buildSite();
  site = await startSite();
}, limit);
after(async () => {
  for (const child of proxies) {
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  }
  await site?.stop();
  rmSync(own, { recursive: true, force: true });
});

for (const [name, start] of Object.entries({ "nginx, HTTP/1.0": nginx("1.0"), "nginx, HTTP/1.1": nginx("1.1"), HAProxy: haproxy })) {
  test(`${name} passes events on at once, and a break leads to a reconnect`, limit, async () => {
    const origin = await start();
    const received = [];
    const began = Date.now();
    const events = new EventSource(`${origin}/pushy/events?channel=kept`);
    for (const event of ["n", "pushy:open", "pushy:gap"]) events.addEventListener(event, (e) => received.push([event, e.data]));
    await until(async () => received, "no event", (all) => all.length > 0);
    const first = Date.now() - began;
    assert.ok(first < 5000, `the first event came after ${first} ms`);
    const sent = Date.now();
    await site.publish("kept", "text", "x");
    await site.publish("kept", "n", 0);
    await until(async () => received, "no event", (all) => all.some(([, data]) => data === "0"));
    assert.ok(Date.now() - sent < 5000, `an event came after ${Date.now() - sent} ms`);
    received.splice(0, received.length, ["pushy:open"]);
    await breakOften(site, { [name]: async () => received }, 300, 2);
    events.close();
  });
}
