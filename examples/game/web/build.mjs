// Builds ../page/game.js, which is committed, so that the game runs without npm. With --check it reports whether the
// file is what the sources build.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const file = here("../page/game.js");
const { outputFiles } = await build({
  entryPoints: [here("main.tsx")],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
  charset: "utf8",
  write: false,
});
if (!process.argv.includes("--check")) writeFileSync(file, outputFiles[0].contents);
else if (!readFileSync(file).equals(outputFiles[0].contents)) {
  console.error("examples/game/page/game.js is stale; run npm run build in examples/game/web/");
  process.exitCode = 1;
}
