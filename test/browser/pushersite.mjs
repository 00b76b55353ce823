// Starts pushy-servers that serve the Pusher protocol, proxies before them, and a site whose pages have
// pusher-js and Laravel Echo and whose server signs with Pusher's SDK.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect as dial, createServer as listen } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import SDK from "pusher";
import PusherModule from "pusher-js";
import { run } from "../../client/test/processes.js";
import { binary, build, patience } from "./example.mjs";

export const Pusher = PusherModule.default ?? PusherModule;
export const soak = Boolean(process.env.PUSHY_SOAK);
export const app = { appId: "1", key: "app-key", secret: "the secret of the application" };
export const buildNodes = () => build("./cmd/pushy-server");

// startNode starts a pushy-server with the Pusher protocol and more of a configuration.
export async function startNode(more = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), "pushy-pusher-"));
  const file = path.join(folder, "config.json");
  writeFileSync(file, JSON.stringify({
    host: "127.0.0.1",
    port: 0,
    secretKey: "a secret of more than sixteen bytes",
    pusher: { app: app.appId, key: app.key, secret: app.secret, clientEvents: true },
    ...more,
  }));
  const child = run(binary, [file], { stdio: ["ignore", "inherit", "pipe"] });
  const log = [];
  const opened = new Promise((resolve) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      const [, found] = line.match(/address"?[=:]"?127\.0\.0\.1:(\d+)/) ?? [];
      if (found) resolve(Number(found));
    });
  });
  const port = await child.started(opened, "pushy-server");
  const end = async (signal) => {
    await child.end(signal);
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
  };
  return {
    port,
    log, // the lines
    sdk: sdkFor(port),
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
  };
}

// sdkFor returns Pusher's SDK for the server at a port.
export const sdkFor = (port, more = {}) => new SDK({
  ...app,
  host: "127.0.0.1",
  port: `${port}`,
  useTLS: false,
  encryptionMasterKeyBase64: masterKey,
  ...more,
});
const masterKey = randomBytes(32).toString("base64");

// startProxy starts a TCP proxy to a port, which can be changed for the connections that follow.
export async function startProxy(port) {
  const pairs = new Set();
  const proxy = {
    to: port,
    connections: 0, // so far
    request: (text) => text, // changes the request of a connection
    // inject sends bytes to the server, as if the clients had sent them.
    inject: (bytes) => pairs.forEach(({ there }) => there.write(bytes)),
    // mute swallows from now on what the connections send: up is to the server, down is to the client.
    mute: (how) => pairs.forEach((pair) => Object.assign(pair, how)),
  };
  const server = listen((here) => {
    proxy.connections++;
    const there = dial(proxy.to, "127.0.0.1");
    const pair = { here, there, up: false, down: false };
    pairs.add(pair);
    here.once("data", (bytes) => {
      there.write(proxy.request(bytes.toString("latin1")), "latin1");
      here.on("data", (bytes) => pair.up || there.write(bytes));
    });
    there.on("data", (bytes) => pair.down || here.write(bytes));
    for (const [one, other, muted] of [[here, there, "up"], [there, here, "down"]]) {
      one.setNoDelay();
      one.on("error", () => {});
      one.on("close", () => {
        if (!pair[muted]) other.destroySoon(); // the end is not heard either
        if (other.destroyed) pairs.delete(pair);
      });
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.port = server.address().port;
  proxy.stop = () => {
    server.close();
    for (const { here, there } of pairs) for (const one of [here, there]) one.destroy();
  };
  return proxy;
}

// options are those of pusher-js in node. sdk signs for the user with an id, a string or an integer.
export function options(port, sdk, user) {
  return {
    cluster: "",
    wsHost: "127.0.0.1",
    wsPort: port,
    forceTLS: false,
    enabledTransports: ["ws"],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) => callback(null, sdk.authorizeChannel(socketId, channelName,
        channelName.startsWith("presence-") ? member(user) : undefined)),
    },
    userAuthentication: {
      customHandler: ({ socketId }, callback) => callback(null, sdk.authenticateUser(socketId, { id: `${user}` })),
    },
  };
}

const member = (id) => ({ user_id: id, user_info: { name: `N${id}` } });

// event returns the data of the next event.
export const event = (on, name) => new Promise((resolve) => {
  const listen = (data) => {
    on.unbind(name, listen);
    resolve(data);
  };
  on.bind(name, listen);
});

// logOf returns a log of what happens to the connection of a client, which fills from now on: the states,
// the codes of errors, which pusher-js reports twice if it acts upon them, and "pause" if it waits for
// almost 1 s before it connects again. The event connecting_in does not tell: pusher-js emits it also before
// it connects at once.
export function logOf({ connection }) {
  const log = [];
  let pause;
  const add = (line) => line !== log.at(-1) && log.push(line);
  connection.bind("state_change", ({ current }) => {
    clearTimeout(pause);
    add(current);
  });
  connection.bind("error", ({ error, data }) => {
    clearTimeout(pause);
    pause = setTimeout(add, 900, "pause");
    add(`error ${(error?.data ?? data)?.code}`);
  });
  return log;
}

export const subscribed = (channel) => event(channel, "pusher:subscription_succeeded");

// until waits until a func returns something else than a false value, and returns that.
export async function until(what, check, within = patience) {
  for (const began = Date.now(); Date.now() - began < within;) {
    const value = await check();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not within ${within} ms: ${what}`);
}

// ask returns the answer of the HTTP API once all nodes have contributed to it. On a busy machine, a node may
// not answer the others in time.
export const ask = (sdk, path, params = {}) => until(`an answer of all nodes to ${path}`, () => patiently(async () => {
  const answer = await sdk.get({ path, params });
  return !answer.headers.get("pushy-silent") && answer.json();
}));

// patiently returns what a call to the HTTP API does, or undefined if the SDK shall call again.
export async function patiently(call) {
  try {
    return await call();
  } catch (error) {
    if (error.status !== 503) throw error;
  }
}

const scripts = {
  "/pusher.js": "pusher-js/dist/web/pusher.min.js",
  "/pusher-with-encryption.js": "pusher-js/dist/web/pusher-with-encryption.min.js",
  "/echo.js": "laravel-echo/dist/echo.iife.js",
};

// startSite starts a site. Its endpoints sign with sdk for the user in the query, as others do for that of
// a session; a user of digits is an integer if the query has &integer.
export async function startSite(sdk) {
  const site = {
    asked: [], // channels for which pages have asked to be authorized
    hold: undefined, // is awaited before an answer
    use: (other) => { sdk = other; },
  };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://site");
    const user = url.searchParams.get("user");
    if (scripts[url.pathname]) {
      response.setHeader("Content-Type", "text/javascript");
      response.end(readFileSync(path.join(import.meta.dirname, "node_modules", scripts[url.pathname])));
      return;
    }
    if (request.method !== "POST") {
      response.setHeader("Content-Type", "text/html");
      response.end(`<!doctype html><link rel="icon" href="data:,">
        <script src="/pusher${url.searchParams.has("encryption") ? "-with-encryption" : ""}.js"></script>
        <script src="/echo.js"></script>`);
      return;
    }
    let body = "";
    for await (const part of request) body += part;
    const form = new URLSearchParams(body);
    const [socket, channel] = [form.get("socket_id"), form.get("channel_name")];
    const id = url.searchParams.has("integer") ? Number(user) : user;
    site.asked.push(channel);
    await site.hold;
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(url.pathname === "/user-auth" ? sdk.authenticateUser(socket, { id: user })
      : sdk.authorizeChannel(socket, channel, channel.startsWith("presence-") ? member(id) : undefined)));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return Object.assign(site, {
    origin: `http://127.0.0.1:${port}`,
    foreign: `http://localhost:${port}`, // the same pages with another origin
    stop() {
      server.close();
      server.closeAllConnections();
    },
  });
}

// connectInPage runs in a page. It makes the clients of a user, and a log of what happens.
export function connectInPage({ port, user, key = "app-key", integer = false, more = {} }) {
  const query = `?user=${user}${integer ? "&integer" : ""}`;
  const pusher = new Pusher(key, {
    cluster: "",
    wsHost: "127.0.0.1",
    wsPort: port,
    forceTLS: false,
    enabledTransports: ["ws"],
    channelAuthorization: { endpoint: `/auth${query}` },
    userAuthentication: { endpoint: `/user-auth${query}` },
    ...more,
  });
  const log = []; // as logOf
  pusher.connection.bind("state_change", ({ current }) => log.push(current));
  pusher.connection.bind("error", ({ error, data }) => log.push(`error ${(error?.data ?? data)?.code}`));
  // next returns the data of the next event.
  const next = (on, name) => new Promise((resolve) => {
    const listen = (data) => {
      on.unbind(name, listen);
      resolve(data);
    };
    on.bind(name, listen);
  });
  const subscribe = async (name) => {
    const channel = pusher.subscribe(name);
    await next(channel, "pusher:subscription_succeeded");
    return channel;
  };
  Object.assign(window, { pusher, log, next, subscribe });
}
