// Streams behind nginx, with buffering and gzip on and with HTTP/1.0 or 1.1 to the server, HAProxy, and Caddy
// with compression.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { EventSource } from "eventsource";
import { freePort } from "../../client/test/server.js";
import { patience } from "./example.mjs";
import { run as startProcess } from "../../client/test/processes.js";
import { breakOften, buildSite, pause, soak, startSite, until } from "./ssesite.mjs";
import { after, before, test } from "./suite.mjs";

// atOnce is much shorter than the time in which heartbeats fill the buffer of a proxy.
const atOnce = 20_000;
const limit = { timeout: 5 * patience };
const own = mkdtempSync(path.join(tmpdir(), "pushy-proxies-"));
const proxies = [];
let site;
// How long nothing happens in a stream, the time in which a proxy must receive something, and the time between
// heartbeats, in seconds.
const [silence, idle, heartbeat] = soak ? [120, 50, 25] : [15, 10, 2];

// Caddy logs every start and request to standard error.
const quiet = (name) => (name === "caddy" ? "ignore" : "inherit");

// run starts a proxy, and waits until it answers.
async function run(name, port, config, args) {
  const file = path.join(own, `${name}.conf`);
  writeFileSync(file, config);
  const child = startProcess(name.split("-")[0], args(file), { stdio: ["ignore", "inherit", quiet(name)], env: { ...process.env, HOME: own, XDG_DATA_HOME: own, XDG_CONFIG_HOME: own } });
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
      server { listen 127.0.0.1:${port}; location / { proxy_pass ${site.origin}; proxy_http_version ${version}; proxy_read_timeout ${idle}s; send_timeout ${idle}s; proxy_set_header Host $http_host; proxy_set_header Connection ""; } }
    }`, (file) => ["-c", file]);
};

async function haproxy() {
  const port = await freePort();
  return run("haproxy", port, `
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client ${idle}s
  timeout server ${idle}s
frontend in
  bind 127.0.0.1:${port}
  default_backend out
backend out
  server one ${new URL(site.origin).host}
`, (file) => ["-f", file]);
}

async function caddy() {
  const port = await freePort();
  return run("caddy", port, `
{
	admin off
	auto_https off
}
http://127.0.0.1:${port} {
	encode gzip
	reverse_proxy ${new URL(site.origin).host} {
		transport http {
			read_timeout ${idle}s
		}
	}
}
`, (file) => ["run", "--config", file, "--adapter", "caddyfile"]);
}

const origins = {};

before(async () => {
  buildSite();
  site = await startSite(undefined, "-heartbeat", `${heartbeat}s`);
  const all = { "nginx, HTTP/1.0": nginx("1.0"), "nginx, HTTP/1.1": nginx("1.1"), HAProxy: haproxy, Caddy: caddy };
  await Promise.all(Object.entries(all).map(async ([name, start]) => { origins[name] = await start(); }));
}, limit);
after(async () => {
  for (const child of proxies) await child.end();
  await site?.stop();
  rmSync(own, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
});

// listen opens a stream behind each of the proxies, and returns what each receives.
function listen(context, t) {
  const all = {};
  for (const [name, origin] of Object.entries(origins)) {
    const received = [];
    const began = Date.now();
    const events = new EventSource(`${origin}/pushy/events?channel=kept&t=${t}-${encodeURIComponent(name)}`);
    context.after(() => events.close());
    for (const event of ["n", "text", "pushy:open", "pushy:gap"]) {
      events.addEventListener(event, (e) => received.push([event, e.data, Date.now() - began]));
    }
    all[name] = received;
  }
  return all;
}

test("proxies pass events on at once", limit, async (context) => {
  const all = listen(context, "once");
  for (const [name, received] of Object.entries(all)) {
    await until(async () => received, `no event through ${name}`, (got) => got.length > 0);
    assert.ok(received[0][2] < atOnce, `the first event came through ${name} after ${received[0][2]} ms`);
  }
  const sent = Date.now();
  await site.publish("kept", "text", "x");
  for (const [name, received] of Object.entries(all)) {
    await until(async () => received, `no event through ${name}`, (got) => got.some(([, data]) => data === "x"));
    assert.ok(Date.now() - sent < atOnce, `an event came through ${name} after ${Date.now() - sent} ms`);
  }
  console.log("first event, ms:", Object.entries(all).map(([name, [[, , ms]]]) => `${name} ${ms}`).join("; "));
});

test("heartbeats keep a stream open in which nothing happens", limit, async (context) => {
  const all = listen(context, "silent");
  for (const [name, received] of Object.entries(all)) await until(async () => received, `no event through ${name}`, (got) => got.length > 0);
  await pause(silence * 1000);
  await site.publish("kept", "text", "after the silence");
  for (const [name, received] of Object.entries(all)) {
    await until(async () => received, `no event through ${name}`, (got) => got.some(([, data]) => data === "after the silence"));
    assert.equal((await site.requests(`silent-${encodeURIComponent(name)}`)).length, 1, `the stream through ${name} has ended`);
  }
});

test("a break behind a proxy leads to a reconnect, and no event is lost", limit, async (context) => {
  const all = listen(context, "break");
  await breakOften(site, Object.fromEntries(Object.entries(all).map(([name, received]) => [name, async () => received])), 300, 2);
});
