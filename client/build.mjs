// Builds the files of the package: the scripts, the modules, the bindings for frameworks, and the types
// for require. They are committed, so that running pushy needs no node. With --check it reports whether
// they are what src builds.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** The bytes that a file can have, gzipped. @type {Record<string, number>} */
const limits = { "pushy.js": 7168, "react.mjs": 1023, "react.cjs": 1023, "svelte.mjs": 1023, "svelte.cjs": 1023 };
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

/** @param {string} name @param {Uint8Array} contents */
function finish(name, contents) {
  const size = gzipSync(contents, { level: 9 }).length;
  console.log(`${name}: ${contents.length} bytes, ${size} gzipped`);
  if (size > limits[name]) {
    console.error(`${name} has ${size} bytes gzipped, at most ${limits[name]} are allowed`);
    failed = true;
  }
  put(name, contents);
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
  ["react.mjs", { entryPoints: [here("src/react.js")], format: "esm", external: ["react"] }],
  ["svelte.mjs", { entryPoints: [here("src/svelte.js")], format: "esm" }],
];
/**
 * Returns a module for require. esbuild's own form has 200 bytes of helpers, which two small modules do not need.
 * @param {string} module
 */
function common(module) {
  return module
    .replace(/import\{([^}]*)\}from("\w+");/, (_, names, from) => `const{${names.replaceAll(" as ", ":")}}=require(${from});`)
    .replace(/export\{([^}]*)\};/, (_, names) => names.replace(/([\w$]+) as (\w+),?/g, (_, short, name) => `exports.${name}=${short};`));
}

let names = mangleCache;
for (const [name, entry] of main ? files : []) {
  const result = await build({ ...options, ...entry, mangleCache: names });
  names = /** @type {any} */ (result.mangleCache);
  finish(name, result.outputFiles[0].contents);
  if (/react|svelte/.test(name)) finish(name.replace(".mjs", ".cjs"), Buffer.from(common(result.outputFiles[0].text)));
}
// require has types of its own in TypeScript.
for (const name of main ? ["pushy", "react", "svelte"] : []) {
  put(`${name}.d.cts`, Buffer.from(readFileSync(here(`${name}.d.ts`), "utf8").replaceAll('"./pushy.js"', '"./pushy.cjs"')));
}
process.exitCode = failed ? 1 : 0;
