// Tests that hang, and browsers that do not close, end.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { closing } from "./example.mjs";
import { patience, test } from "./suite.mjs";

const limit = { timeout: 3 * patience };
const never = "new Promise(() => {})";

test("hooks that hang", limit, (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "pushy-suite-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, "hangs.test.mjs");
  for (const [name, script] of [
    ["after", `after(() => ${never}); test("x", limit, () => {});`],
    ["t.after", `test("x", limit, (t) => { t.after(() => ${never}); });`],
    ["t.after of a test in a test", `test("x", { timeout: 600_000 }, (t) => t.test("y", limit, (t) => { t.after(() => ${never}); }));`],
  ]) {
    writeFileSync(file, `
      import { after, test } from ${JSON.stringify(new URL("suite.mjs", import.meta.url).href)};
      const limit = { timeout: 600_000 };
      setInterval(() => {}, 1000);
      ${script}`);
    const env = { ...process.env, PUSHY_PATIENCE: "400" };
    delete env.NODE_TEST_CONTEXT; // that of this file
    const { status, stdout } = spawnSync(process.execPath, ["--test", "--test-force-exit", file], { env, encoding: "utf8", timeout: 2 * patience });
    assert.equal(status, 1, `${name}: ${stdout}`);
    assert.match(stdout, /timed out after 1200ms|failed running after hook/, name);
  }
});

test("a test without a limit is refused", limit, () => {
  assert.throws(() => test("forgotten", () => {}), /^Error: the test forgotten has no time limit$/);
});

test("a browser that does not close is killed", limit, async () => {
  const done = [];
  const browser = closing({ close: () => new Promise(() => {}) }, () => done.push("killed"), () => done.push("cleaned"), 1000);
  await browser.close();
  assert.deepEqual(done, ["killed", "cleaned"]);

  done.length = 0;
  const gone = closing({ close: () => Promise.reject(new Error("the connection is closed")) }, () => { throw new Error("no such process"); }, () => done.push("cleaned"));
  await gone.close();
  assert.deepEqual(done, ["cleaned"]);

  done.length = 0;
  const good = closing({ close: async () => done.push("closed") }, () => done.push("killed"), () => done.push("cleaned"));
  await good.close();
  assert.deepEqual(done, ["closed", "cleaned"]);
});
