// The package as it is installed: what is packed is what import, require and
// TypeScript find. Issue 11, number 34.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

const limit = { timeout: 300_000 };
const client = path.resolve(import.meta.dirname, "..");
const home = mkdtempSync(path.join(tmpdir(), "pushy-package-"));
const run = (command, ...args) => execFileSync(command, args, { cwd: home, encoding: "utf8" }).trim();
const write = (name, content) => writeFileSync(path.join(home, name), content);

before(() => {
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--dry-run"], { cwd: client, encoding: "utf8" }));
  const installed = path.join(home, "node_modules/pushy-client");
  for (const { path: file } of files) {
    mkdirSync(path.dirname(path.join(installed, file)), { recursive: true });
    cpSync(path.join(client, file), path.join(installed, file));
  }
  write("package.json", '{"private":true}');
}, limit);
after(() => rmSync(home, { recursive: true, force: true }));

const use = 'const pushy = new Pushy("/pushy"); pushy.connect(); console.log(typeof PushyError, pushy.state, Pushy === Default)';

test("require, as jest and older programs do", limit, () => {
  write("a.cjs", `const { Pushy, PushyError, default: Default } = require("pushy-client"); ${use}`);
  assert.equal(run("node", "a.cjs"), "function idle true");
  // jest's environments, which look for these conditions.
  for (const condition of ["browser", "jsdom"]) assert.equal(run("node", "-C", condition, "a.cjs"), "function idle true");
});

test("import", limit, () => {
  write("a.mjs", `import Default, { Pushy, PushyError } from "pushy-client"; ${use}`);
  assert.equal(run("node", "a.mjs"), "function idle true");
});

test("the bindings for frameworks", limit, () => {
  symlinkSync(path.join(client, "node_modules/react"), path.join(home, "node_modules/react"));
  const names = (binding, how) => `console.log(Object.keys(${how("pushy-client/" + binding)}).sort().join())`;
  for (const [binding, want] of [["react", "useChannel,useConnection,useEvent,usePresence"], ["svelte", "channel,connection,event,on,presence"]]) {
    write("b.cjs", names(binding, (module) => `require("${module}")`));
    assert.equal(run("node", "b.cjs"), want);
    write("b.mjs", names(binding, (module) => `await import("${module}")`));
    assert.equal(run("node", "b.mjs"), want);
    write("b.mjs", `import { ${want} } from "pushy-client/${binding}"; console.log(typeof ${want.split(",")[0]})`);
    assert.equal(run("node", "b.mjs"), "function");
  }
  // A page imports one copy and a library requires another: they count their components together.
  write("c.mjs", `
    import { createRequire } from "node:module";
    import { Pushy } from "pushy-client";
    import { channel } from "pushy-client/svelte";
    globalThis.window = globalThis;
    const pushy = new Pushy("/pushy"), other = createRequire(import.meta.url)("pushy-client/svelte").channel, told = [];
    for (const name of ["subscribe", "unsubscribe"]) {
      const was = pushy.channel("a")[name];
      pushy.channel("a")[name] = function () { told.push(name); return was.call(this); };
    }
    const ends = [channel, other].map((make) => make(pushy, "a").subscribe(() => {}));
    for (const end of ends) end();
    setTimeout(() => console.log(told.join()), 1);
  `);
  assert.equal(run("node", "c.mjs"), "subscribe,unsubscribe");
  // A framework that renders on the server loads it with the components of the page.
  for (const file of ["react.mjs", "react.cjs"]) assert.match(readFileSync(path.join(client, file), "utf8"), /^\/\*.*\*\/\n"use client";/);
  const { peerDependencies, peerDependenciesMeta, dependencies } = JSON.parse(readFileSync(path.join(client, "package.json")));
  assert.deepEqual([Object.keys(peerDependencies), Object.keys(peerDependenciesMeta), dependencies], [["react", "svelte"], ["react", "svelte"], undefined]);
});

test("a server that renders a page: nothing is connected, thrown or left running", limit, () => {
  write("ssr.cjs", `
    for (const name of ["WebSocket", "fetch", "navigator", "EventSource"]) delete globalThis[name];
    const { Pushy } = require("pushy-client");
    const pushy = new Pushy("/pushy", { auth: "/auth" }), told = [];
    pushy.on("state", ({ state }) => told.push(state));
    pushy.channel("lobby").subscribe();
    pushy.exec("hello");
    pushy.connect().connect();
    const later = new Pushy(async () => "/pushy");
    later.connect();
    console.log(pushy.state, told.length);
    setImmediate(() => setImmediate(() => console.log(later.connected, process.getActiveResourcesInfo().includes("Timeout"))));
  `);
  assert.equal(run("node", "ssr.cjs"), "idle 0\nfalse false");
});

const tsc = path.join(client, "node_modules/typescript/bin/tsc");

for (const [name, file, options] of [
  ["node16 and CommonJS", "page.cts", ["--module", "node16", "--moduleResolution", "node16"]],
  ["node16 and modules", "page.mts", ["--module", "node16", "--moduleResolution", "node16"]],
  ["a bundler", "page.ts", ["--module", "esnext", "--moduleResolution", "bundler"]],
  ["a bundler and the DOM", "page.ts", ["--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom"]],
]) {
  test(`TypeScript: ${name}`, limit, () => {
    const bindings = file.replace("page", "bindings");
    write(file, readFileSync(path.join(client, "test/types/page.ts")));
    write(bindings, readFileSync(path.join(client, "test/types/bindings.ts")));
    const lib = options.includes("--lib") ? [] : ["--lib", "es2022"];
    try {
      run("node", tsc, "--strict", "--noEmit", "--target", "es2022", "--types", "", ...lib, ...options, file, bindings);
    } catch (error) {
      assert.fail(error.stdout);
    }
  });
}

test("what npm shows", () => {
  const { repository, keywords, license, homepage, bugs } = JSON.parse(readFileSync(path.join(home, "node_modules/pushy-client/package.json")));
  assert.equal(repository.directory, "client");
  assert.ok(keywords.length && license && homepage && bugs);
  for (const file of ["README.md", "LICENSE", "pushy.js"]) assert.ok(readFileSync(path.join(home, "node_modules/pushy-client", file)).length);
});

// Issue 11, number 34: bundlers leave out an import of what is said to have no side effects.
test("the classic script is known to have a side effect", () => {
  const { sideEffects, exports } = JSON.parse(readFileSync(path.join(home, "node_modules/pushy-client/package.json")));
  assert.ok(sideEffects.includes(exports["./pushy.js"]), `${sideEffects}`);
  for (const file of [exports["."].import.default, exports["."].require.default]) assert.ok(!sideEffects.includes(file), file);
});
