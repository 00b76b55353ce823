// Searches for short forms of the private names with which pushy.js is smaller, and writes them
// to names.json: npm run names -- 60 searches for 60 s. Run it when pushy.js is over its limit; any
// other file of names works as well, as long as no object has two names with the same form.
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { options } from "./build.mjs";

const file = new URL("names.json", import.meta.url);
const source = (/** @type {string} */ name) => readFileSync(new URL(`src/${name}.js`, import.meta.url), "utf8");
const own = (/** @type {string} */ name) => source(name).match(/(?<=this\.|^  (async |static )?)_[a-z]\w*/gm) ?? [];

// Objects of one kind have the names of one list.
const emitter = own("emitter"), channel = own("channel"), pushy = own("pushy");
const more = own("more").filter((name) => ![...channel, ...pushy].includes(name));
const kinds = [
  [...emitter, ...channel, ...more],
  [...emitter, ...pushy, ...more],
  ["_message", "_alive", "_oversized", "_close", "_send"],
  ["_retryAfter", "_body"],
  ["_got", "_from", "_life", "_anywhere", "_spare"],
  ["_group", "_wait"],
  ["_done", "_size", "_timeout", "_timer", "_quiet"],
];
const names = [...new Set(["pushy", "channel", "emitter", "links", "more", "better", "token"].flatMap((name) => source(name).match(/\b_[a-z]\w+/g) ?? []))].sort();
const letters = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ$_"];
/** @type {Record<string, string>} */
let best = {};
try {
  best = JSON.parse(readFileSync(file, "utf8"));
} catch {}
for (const name of Object.keys(best)) if (!names.includes(name)) delete best[name];

const clash = (/** @type {string} */ a, /** @type {string} */ b) => a !== b && kinds.some((kind) => kind.includes(a) && kind.includes(b));
const valid = (/** @type {Record<string, string>} */ map) => names.every((a) => names.every((b) => map[a] !== map[b] || !clash(a, b)));
for (const name of names) best[name] ??= letters.find((letter) => valid({ ...Object.fromEntries(names.map((n) => [n, best[n] ?? n])), [name]: letter })) ?? name;
if (!valid(best)) throw new Error("names.json has one form for two names of an object; delete it");

const size = async (/** @type {Record<string, string>} */ map) => {
  const { outputFiles } = await build({ ...options, entryPoints: [new URL("src/global.js", import.meta.url).pathname], format: "iife", mangleCache: map });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
};
let least = await size(best);
console.log(`${least} bytes`);
for (const end = Date.now() + 1000 * Number(process.argv[2] ?? 60); Date.now() < end;) {
  const map = { ...best }, name = names[Math.floor(Math.random() * names.length)], form = letters[Math.floor(Math.random() * Math.random() * letters.length)];
  for (const other of names) if (map[other] === form && clash(name, other)) map[other] = map[name];
  map[name] = form;
  if (!valid(map)) continue;
  const now = await size(map);
  if (now <= least) [best, least] = [map, now];
}
console.log(`${least} bytes`);
writeFileSync(file, `${JSON.stringify(Object.fromEntries(Object.entries(best).sort()), null, 2)}\n`);
