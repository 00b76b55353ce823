// Starts test/server, a pushy.Server that can be ordered about.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const root = path.resolve(import.meta.dirname, "../..");
const own = mkdtempSync(path.join(tmpdir(), "pushy-client-"));
process.on("exit", () => rmSync(own, { recursive: true, force: true }));
const binary = path.join(own, "server");

export function build() {
  execFileSync("go", ["build", "-o", binary, "./test/server"], { cwd: root, stdio: "inherit" });
}

/** Runs a server; kill ends it without a goodbye, stop with one. */
export const start = (addr = "127.0.0.1:0", ...flags) => run(binary, addr, ...flags);

/** The commit before history, grace and the modes of presence, from which the old server and client are. */
const before = "f76b4aa";

/** Builds the server of an old commit, and returns how to start it and the old client's script. It needs the history of the repository. */
export function buildOld() {
  const folder = path.join(own, "old"), old = path.join(own, "old-server");
  const git = (...args) => execFileSync("git", args, { cwd: root, maxBuffer: 1 << 28 });
  mkdirSync(folder);
  execFileSync("tar", ["-x", "-C", folder], { input: git("archive", before) });
  execFileSync("go", ["build", "-trimpath", "-o", old, "./test/server"], { cwd: folder, stdio: "inherit", env: { ...process.env, GOWORK: "off" } });
  return { startOld: () => run(old, "127.0.0.1:0"), script: String(git("show", `${before}:client/pushy.js`)) };
}

/** @param {string} binary */
async function run(binary, addr, ...flags) {
  const child = spawn(binary, ["-addr", addr, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const opened = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => resolve(line.match(/^open (http:\S+)\/$/)?.[1]));
  });
  const origin = await Promise.race([opened, ended.then(() => Promise.reject(new Error("the server did not start")))]);
  const end = (signal) => async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await ended;
  };
  return {
    origin,
    host: new URL(origin).host,
    kill: end("SIGKILL"),
    stop: end("SIGTERM"),
    /** POST /control/{order}, see test/server/main.go. */
    async control(order, query = {}) {
      // A connection of its own: those that the client's requests share are for cutting.
      const asked = request(`${origin}/control/${order}?${new URLSearchParams(query)}`, { method: "POST", agent: false }).end();
      const [response] = await once(asked, "response");
      const body = (await response.toArray()).join("");
      if (response.statusCode !== 200) throw new Error(body);
      return JSON.parse(body);
    },
  };
}
