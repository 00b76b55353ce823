// Builds pushy.js, pushy.mjs, pushy.cjs and pushy.d.cts, which are committed, so that
// running pushy needs no node. With --check it reports whether they are what src builds.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const limit = 6144; // bytes of pushy.js, gzipped
const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));
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

/** @type {[string, import("esbuild").BuildOptions][]} */
const files = [
  ["pushy.js", { entryPoints: [here("src/global.js")], format: "iife" }],
  ["pushy.mjs", { entryPoints: [here("src/module.js")], format: "esm" }],
  ["pushy.cjs", { entryPoints: [here("src/module.js")], format: "cjs" }],
];
for (const [name, options] of files) {
  const { outputFiles } = await build({
    ...options, bundle: true, minify: true, target: "es2022", charset: "utf8", write: false,
    tsconfigRaw: {}, // modules are strict without a directive
    mangleProps: /^_[a-z]/, // the client's private names
    banner: { js: "/* pushy, MIT license */" },
  });
  const { contents } = outputFiles[0];
  const size = gzipSync(contents, { level: 9 }).length;
  console.log(`${name}: ${contents.length} bytes, ${size} gzipped`);
  if (name === "pushy.js" && size > limit) {
    console.error(`pushy.js has ${size} bytes gzipped, at most ${limit} are allowed`);
    failed = true;
  }
  put(name, contents);
}
put("pushy.d.cts", readFileSync(here("pushy.d.ts"))); // require has types of its own in TypeScript
process.exitCode = failed ? 1 : 0;
