// Builds pushy.js, more.js, pushy.mjs, pushy.cjs and pushy.d.cts, which are committed, so that
// running pushy needs no node. With --check it reports whether they are what src builds.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const limit = 7168; // bytes of pushy.js, gzipped
const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));
const main = process.argv[1] === fileURLToPath(import.meta.url);
const check = process.argv.includes("--check");
let failed = false;

/** @param {string} name @param {Uint8Array} contents */
function put(name, contents) {
  if (!check) writeFileSync(here(name), contents);
  else if (!readFileSync(here(name)).equals(contents)) {
    console.error(`client/${name} is stale; run npm run build in client/`);
    failed = true;
  }
}

/**
 * Removes what esbuild leaves: fields without a value, which are there for the types, and constants
 * that are numbers, by their values.
 * @param {string} source
 */
function smaller(source) {
  const numbers = [...source.matchAll(/^const (\w+) = ([\d_]+);.*$/gm)];
  for (const [line, name, value] of numbers) {
    source = source.replace(line, "").replace(new RegExp(`(?<![.\\w"$])${name}(?![\\w"$:])`, "g"), value);
  }
  return source.replace(/^  _\w+( = false)?;.*$/gm, "");
}

const fields = {
  name: "fields",
  setup(/** @type {import("esbuild").PluginBuild} */ { onLoad }) {
    onLoad({ filter: /src[/\\]\w+\.js$/ }, ({ path }) => ({ contents: smaller(readFileSync(path, "utf8")) }));
  },
};

// The short forms of private names. Names of different classes share them, since gzip needs fewer
// bytes then: npm run names searches for better ones. A name that is not in the file gets a form
// that no other name has. more.js uses the private names of pushy.js, so it has the same ones.
const mangleCache = JSON.parse(readFileSync(here("names.json"), "utf8"));

export const options = {
  bundle: true, minify: true, target: "es2022", charset: /** @type {const} */ ("utf8"), write: /** @type {const} */ (false),
  tsconfigRaw: {}, // modules are strict without a directive
  mangleProps: /^_[a-z]/, // the client's private names
  plugins: [fields],
  banner: { js: "/* pushy, MIT license */" },
};

/** @type {[string, import("esbuild").BuildOptions][]} */
const files = [
  ["pushy.js", { entryPoints: [here("src/global.js")], format: "iife" }],
  ["more.js", { entryPoints: [here("src/more-global.js")], format: "iife" }],
  ["pushy.mjs", { entryPoints: [here("src/module.js")], format: "esm" }],
  ["pushy.cjs", { entryPoints: [here("src/module.js")], format: "cjs" }],
];
let names = mangleCache;
for (const [name, entry] of main ? files : []) {
  const result = await build({ ...options, ...entry, mangleCache: names });
  names = /** @type {any} */ (result.mangleCache);
  const { contents } = result.outputFiles[0];
  const size = gzipSync(contents, { level: 9 }).length;
  console.log(`${name}: ${contents.length} bytes, ${size} gzipped`);
  if (name === "pushy.js" && size > limit) {
    console.error(`pushy.js has ${size} bytes gzipped, at most ${limit} are allowed`);
    failed = true;
  }
  put(name, contents);
}
if (main) put("pushy.d.cts", readFileSync(here("pushy.d.ts"))); // require has types of its own in TypeScript
process.exitCode = failed ? 1 : 0;
