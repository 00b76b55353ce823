// Starts test/server, a pushy.Server that can be ordered about.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { patience, run as startProcess } from "./processes.js";

const root = path.resolve(import.meta.dirname, "../..");
const own = mkdtempSync(path.join(tmpdir(), "pushy-client-"));
process.on("exit", () => rmSync(own, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));
const binary = path.join(own, "server");

export function build() {
  execFileSync("go", ["build", "-o", binary, "./test/server"], { cwd: root, stdio: "inherit" });
}

/**
 * Returns a port for a server that is started later, perhaps again after it was ended. It is below those
 * that Linux gives to connections and to servers that do not name one, so that they do not take it meanwhile.
 */
export async function freePort() {
  for (;;) {
    const port = 10240 + Math.floor(Math.random() * (32768 - 10240));
    const server = createServer().listen(port, "127.0.0.1");
    const free = await once(server, "listening").then(() => true, () => false);
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Runs a server; kill ends it without a goodbye, stop with one. */
export const start = async (addr, ...flags) => run(binary, addr ?? `127.0.0.1:${await freePort()}`, ...flags);

/** Builds the server of the first release candidate, and returns how to start it and its client's script. */
export function buildOld() {
  const folder = path.join(own, "old"), old = path.join(own, "old-server");
  mkdirSync(folder);
  execFileSync("tar", ["-xzf", path.join(root, "test/server/testdata/f76b4aa.tar.gz"), "-C", folder]);
  execFileSync("go", ["build", "-trimpath", "-o", old, "./test/server"], { cwd: folder, stdio: "inherit", env: { ...process.env, GOWORK: "off" } });
  return { startOld: async () => run(old, `127.0.0.1:${await freePort()}`), script: readFileSync(path.join(folder, "client/pushy.js"), "utf8") };
}

/** @param {string} binary */
async function run(binary, addr, ...flags) {
  const child = startProcess(binary, ["-addr", addr, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const opened = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => resolve(line.match(/^open (http:\S+)\/$/)?.[1]));
  });
  const origin = await child.started(opened, "the server");
  return {
    origin,
    host: new URL(origin).host,
    kill: () => child.end("SIGKILL"),
    stop: () => child.end(),
    /** POST /control/{order}, see test/server/main.go. */
    async control(order, query = {}) {
      // A connection of its own: those that the client's requests share are for cutting.
      const asked = request(`${origin}/control/${order}?${new URLSearchParams(query)}`, { method: "POST", agent: false }).end();
      asked.setTimeout(2 * patience, () => asked.destroy(new Error(`the server does not answer ${order}`)));
      const [response] = await once(asked, "response");
      const body = (await response.toArray()).join("");
      if (response.statusCode !== 200) throw new Error(body);
      return JSON.parse(body);
    },
  };
}
