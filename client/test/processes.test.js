// The processes of tests end, whatever happens.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { patience, run, until, within } from "./processes.js";

const limit = { timeout: 3 * patience };
const node = (script, ...args) => run(process.execPath, ["-e", script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
const firstLine = (child) => child.started(new Promise((resolve) => createInterface({ input: child.stdout }).on("line", resolve)));
const lives = (pid) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test("a process that ends by itself, and one that does not", limit, async () => {
  const polite = node("setInterval(() => {}, 1000); process.on('SIGTERM', () => process.exit(3)); console.log('ready')");
  assert.equal(await firstLine(polite), "ready");
  assert.deepEqual(await polite.end(), [3, null]);
  assert.deepEqual(await polite.end(), [3, null], "again");

  const deaf = node("setInterval(() => {}, 1000); process.on('SIGTERM', () => {}); console.log('ready')");
  assert.equal(await firstLine(deaf), "ready");
  assert.deepEqual(await deaf.end("SIGTERM", 1000), [null, "SIGKILL"]);
});

test("a process that is not ready", limit, async () => {
  const short = node("process.exit(4)");
  await assert.rejects(firstLine(short), /ended with code 4, signal null, before it was ready/);
  const missing = run("/there/is/no/such/program", [], {});
  await assert.rejects(firstLine({ ...missing, stdout: process.stdin }), /ENOENT/);
});

test("a process ends with the file that has started it", limit, async () => {
  const script = `
    import { run } from ${JSON.stringify(new URL("./processes.js", import.meta.url).href)};
    const child = run(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
    console.log(child.pid);
    process.exit(0);`;
  const pid = Number(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }));
  assert.ok(pid > 0);
  await until(() => lives(pid), "the process lives", (now) => !now);
});

test("waiting has a limit", limit, async () => {
  assert.equal(await within(Promise.resolve(5), "five"), 5);
  await assert.rejects(within(Promise.reject(new Error("wrong")), "five"), /wrong/);
  await assert.rejects(within(new Promise(() => {}), "nothing", 1000), /^Error: nothing: not within 1000 ms$/);
  let n = 0;
  assert.equal(await until(() => ++n, "three", (now) => now === 3), 3);
  await assert.rejects(until(() => [1], "no number", () => false, 1000), /^Error: no number: \[1\]$/);
});
