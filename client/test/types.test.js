// What pushy-types writes, compiled by TypeScript in strict mode: with the browser client and its bindings, and with
// what encoding/json writes for the same Go types.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { compile as svelte } from "svelte/compiler";

const client = path.resolve(import.meta.dirname, ".."), golden = path.resolve(client, "../cmd/pushy-types/testdata");
const home = mkdtempSync(path.join(client, "node_modules/.types-")); // where React and Svelte are found
after(() => rmSync(home, { recursive: true, force: true }));

/** Compiles a page with the declarations of a golden file, and returns what TypeScript says. */
function compile(name, page) {
  cpSync(path.join(golden, name, `${name}.d.ts`), path.join(home, `${name}.d.ts`));
  return check({ [`${name}-page.ts`]: page }, { exactOptionalPropertyTypes: true }, [`${name}.d.ts`]);
}

/** Compiles files by their names, and returns what TypeScript says. */
function check(pages, options, more = []) {
  for (const [file, text] of Object.entries(pages)) writeFileSync(path.join(home, file), text);
  const paths = { "pushy-client": ["pushy.d.ts"], "pushy-client/*": ["*.d.ts"] };
  for (const alias of Object.values(paths)) alias[0] = path.join(client, alias[0]);
  writeFileSync(path.join(home, "tsconfig.json"), JSON.stringify({
    compilerOptions: {
      strict: true, noEmit: true, target: "es2022", module: "esnext", moduleResolution: "bundler", jsx: "react-jsx", types: [], paths, ...options,
    },
    files: [...Object.keys(pages), ...more],
  }));
  try {
    return execFileSync("node", [path.join(client, "node_modules/typescript/bin/tsc"), "-p", home], { encoding: "utf8" });
  } catch (error) {
    return error.stdout;
  }
}

test("a page's events have the types of the Go code", { timeout: 300_000 }, () => {
  assert.equal(compile("chat", `
    import { Pushy } from "pushy-client";
    import { useChannel, useEvent } from "pushy-client/react";
    import { channel, event, on } from "pushy-client/svelte";
    import type { ChatEvents, Line } from "./chat.js";

    const pushy = new Pushy("/pushy"), chat = pushy.channel<ChatEvents>("chat");
    chat.on("said", (line) => [line.text, line.from.name, line.replyTo?.at.length, line.tags?.[0]]);
    chat.on("topic-changed", (topic) => topic.length);
    // @ts-expect-error it is not in the Go code
    chat.on("sang", () => {});
    // @ts-expect-error it has another name
    chat.on("said", (line) => line.txt);
    // @ts-expect-error the slice can be nil
    chat.on("said", (line) => line.tags.length);
    // @ts-expect-error it is not sent to the page
    chat.on("said", (line) => line.from.email);

    export function Chat() {
      const { channel } = useChannel<ChatEvents>(pushy, "chat");
      useEvent(channel, "said", (line: Line) => line.id);
      // @ts-expect-error it is a number
      useEvent(channel, "said", (line) => line.id.length);
    }
    const room = channel<ChatEvents>(pushy, "chat");
    event(room, "said").subscribe((line) => line?.text);
    // @ts-expect-error it has another name
    on(room, "said", (line) => line.txt);
  `), "");
});

test("what encoding/json writes has the types that are declared", { timeout: 300_000 }, () => {
  const sample = (name) => readFileSync(path.join(golden, "shapes", `${name}.json`), "utf8");
  const page = (full) => `import type { Shapes } from "./shapes.js"; export const full: Shapes = ${full}, least: Shapes = ${sample("least")};`;
  assert.equal(compile("shapes", page(sample("full"))), "");
  // The compiler reports a field that is not declared, one that is missing, and one of another type.
  for (const [from, to, says] of [['"Kept"', '"kept"', "'\"kept\"' does not exist"], ['"seen": 0,', "", "'seen' is missing"], ['"deep": 5', '"deep": "5"', "'string' is not assignable"]]) {
    assert.match(compile("shapes", page(sample("full").replace(from, to))), new RegExp(says));
  }
});

const docs = (name) => readFileSync(path.resolve(client, "../docs", name), "utf8");
const blocks = (text, language) => [...text.matchAll(new RegExp("```" + language + "\\n([^]*?)```", "g"))].map(([, code]) => code);

test("the code of docs/react.md", { timeout: 300_000 }, () => {
  const page = docs("react.md"), [realtime] = blocks(page, "js"), [orders, missed] = blocks(page, "jsx"), [typed] = blocks(page, "ts");
  const load = "/** @returns {Promise<any[]>} */ async function load() { return []; }\n";
  const options = { allowJs: true, checkJs: true, noImplicitAny: false, strictNullChecks: false };
  const react = 'import { useEffect, useState } from "react";\n';
  const body = "export function Missed(channel, setOrders) {\n" + missed + "}\n";
  assert.equal(check({ "realtime.js": realtime, "orders.jsx": react + orders + load + body }, options), "");
  // Names that the package does not have are reported.
  assert.match(check({ "orders.jsx": react + orders.replaceAll("usePresence", "usePeople") + load + body }, options), /no exported member 'usePeople'/);
  const types = typed.replace(/import type .*/, 'interface OrderEvents { "order-changed": { title: string } }');
  const imports = 'import type { Pushy } from "pushy-client"; import { useChannel, useEvent } from "pushy-client/react"; declare const pushy: Pushy;\n';
  assert.equal(check({ "typed.ts": imports + types }), "");
  assert.match(check({ "typed.ts": imports + types.replace("order.title", "order.name") }), /'name' does not exist/);
});

test("the code of docs/svelte.md", { timeout: 300_000 }, () => {
  const page = docs("svelte.md"), [orders] = blocks(page, "svelte"), [typed] = blocks(page, "ts");
  assert.deepEqual(svelte(orders, { generate: "client" }).warnings, []);
  const [, script] = orders.match(/<script>([^]*?)<\/script>/);
  const runes = "declare function $state<T>(value: T): any; declare function $effect(run: () => void): void; declare const $room: any; declare function load(): Promise<any>;\n";
  assert.equal(check({ "orders.ts": runes + script, "realtime.d.ts": 'import type { Pushy } from "pushy-client"; export const pushy: Pushy;' }), "");
  const imports = 'import type { Pushy } from "pushy-client"; import { channel, on } from "pushy-client/svelte"; declare const pushy: Pushy;\n';
  const types = typed.replace(/import type .*/, 'interface OrderEvents { "order-added": { title: string } }');
  assert.equal(check({ "typed.ts": imports + types }), "");
  assert.match(check({ "typed.ts": imports + types.replace("order.title", "order.name") }), /'name' does not exist/);
});
