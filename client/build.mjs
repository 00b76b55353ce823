// Builds pushy.js and pushy.mjs, which are committed, so that running pushy
// needs no node. With --check it says whether they are what src builds.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const limit = 6144; // bytes of pushy.js, gzipped
const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));
const check = process.argv.includes("--check");
let failed = false;

/** @type {[string, import("esbuild").BuildOptions][]} */
const files = [
  ["pushy.js", { entryPoints: [here("src/global.js")], format: "iife" }],
  ["pushy.mjs", { entryPoints: [here("src/module.js")], format: "esm" }],
];
for (const [name, options] of files) {
  const { outputFiles } = await build({
    ...options, bundle: true, minify: true, target: "es2020", charset: "utf8", write: false,
    mangleProps: /^_[a-z]/, // ours, by the house's custom
    banner: { js: "/* pushy, the browser client. MIT license. Built from client/src by client/build.mjs. */" },
  });
  const { contents } = outputFiles[0];
  const size = gzipSync(contents, { level: 9 }).length;
  console.log(`${name}: ${contents.length} bytes, ${size} gzipped`);
  if (name === "pushy.js" && size > limit) {
    console.error(`pushy.js has ${size} bytes gzipped, at most ${limit} are allowed`);
    failed = true;
  }
  if (!check) writeFileSync(here(name), contents);
  else if (!readFileSync(here(name)).equals(contents)) {
    console.error(`client/${name} is stale; run npm run build in client/`);
    failed = true;
  }
}
process.exitCode = failed ? 1 : 0;
