// Builds and starts a program, such as examples/chat, and a browser for its pages.
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";
import { patience, run, within } from "../../client/test/processes.js";
import { freePort } from "../../client/test/server.js";

export { patience };
// severalOf returns the time limit of a test that runs several others, one after another.
export const severalOf = (number, { timeout }) => ({ timeout: number * timeout });
const root = path.resolve(import.meta.dirname, "../..");
const own = mkdtempSync(path.join(tmpdir(), "pushy-browser-"));
process.on("exit", () => rmSync(own, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));

export const screenshots = process.env.PUSHY_SCREENSHOTS || mkdtempSync(path.join(tmpdir(), "pushy-screenshots-"));
mkdirSync(screenshots, { recursive: true });

export const binary = path.join(own, process.platform === "win32" ? "program.exe" : "program");

export function build(source = "./examples/chat") {
  execFileSync("go", ["build", "-o", binary, source], { cwd: root, stdio: "inherit" });
}

// start runs the program that was built, and returns its origin and a function that stops it.
export async function start(addr, ...flags) {
  const { origins: [origin], stop } = await startNodes(1, addr ?? `127.0.0.1:${await freePort()}`, ...flags);
  return { origin, stop };
}

// startNodes is start for a program with several nodes, each with its own origin.
export async function startNodes(nodes, addr = "127.0.0.1:0", ...flags) {
  const child = run(binary, ["-addr", addr, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const opened = new Promise((resolve) => {
    const urls = [];
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, url] = line.match(/^open (http:\/\/\S+)\/$/) ?? [];
      if (url && urls.push(url) === nodes) resolve(urls);
    });
  });
  const origins = await child.started(opened, "the example");
  return {
    origins,
    async stop() {
      const [code, signal] = await child.end();
      if (code !== 0) throw new Error(`the example ended with code ${code}, signal ${signal}, instead of shutting down`);
    },
  };
}

// startRedis starts a Redis server that keeps nothing on disk, and returns its address.
export async function startRedis() {
  const port = await freePort();
  return startBroker("redis-server", ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--dir", own], "stdout",
    /Ready to accept connections/, port);
}

// startNATS starts a NATS server with JetStream, and returns its address.
export async function startNATS() {
  const port = await freePort();
  return startBroker("nats-server", ["-a", "127.0.0.1", "-p", `${port}`, "-js", "-sd", mkdtempSync(path.join(own, "nats-"))], "stderr",
    /Server is ready/, port);
}

// startBroker starts a server on a port. It is ready when it writes a line that matches.
async function startBroker(program, args, writes, says, port) {
  const child = run(program, args, { stdio: ["ignore", writes === "stdout" ? "pipe" : "inherit", writes === "stderr" ? "pipe" : "inherit"] });
  const ready = new Promise((resolve) => {
    createInterface({ input: child[writes] }).on("line", (line) => says.test(line) && resolve());
  });
  await child.started(ready);
  return {
    address: `127.0.0.1:${port}`,
    stop: () => child.end(),
  };
}

// launch starts Chromium with more arguments. options are those of Playwright.
export async function launch(more = [], options = {}) {
  const mark = `--pushy-test=${randomUUID()}`; // Chromium ignores it; it names the processes of this one
  const browser = await chromium.launch({
    executablePath: process.env.PUSHY_CHROMIUM || "/usr/bin/chromium",
    timeout: patience,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", mark, ...more,
    ],
    ...options,
  });
  return closing(browser, () => execFileSync("pkill", ["-KILL", "-f", "--", mark]));
}

// launchFirefox starts Firefox with a profile of its own, which is removed when it is closed. options are
// those of Puppeteer.
export async function launchFirefox(options = {}) {
  const profile = mkdtempSync(path.join(own, "firefox-"));
  const browser = await puppeteer.launch({
    browser: "firefox",
    executablePath: process.env.PUSHY_FIREFOX || "/usr/bin/firefox-esr",
    userDataDir: profile,
    headless: true,
    timeout: patience,
    protocolTimeout: patience,
    ...options,
  });
  return closing(browser, () => browser.process()?.kill("SIGKILL"), () => rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 }));
}

// closing makes the close of a browser kill it if it does not end in time, and call cleanUp.
export function closing(browser, kill, cleanUp, time = patience / 2) {
  const close = browser.close.bind(browser);
  browser.close = async () => {
    try {
      await within(close(), "the browser does not close", time);
    } catch (err) {
      console.error(`${err.message}: it is killed`);
      try {
        kill();
      } catch {} // it has ended
    }
    cleanUp?.();
  };
  return browser;
}

export const desktop = { viewport: { width: 1280, height: 800 } };
export const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

// look takes screenshots of pages, by the name of their size, in both color schemes. It fails if
// a page is wider than its window, whose innerWidth grows with the page on a phone.
export async function look(pages, name) {
  for (const [size, page] of Object.entries(pages)) {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) throw new Error(`${name} on ${size} is ${wide} pixels too wide`);
    for (const colorScheme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: path.join(screenshots, `${name}-${size}-${colorScheme}.png`), animations: "disabled" });
    }
  }
}

// record runs in a page. It keeps each text that the page shows, also one that is soon replaced.
function record() {
  const texts = (window.textsShown = []);
  new MutationObserver((changes) => {
    for (const { addedNodes, target, type } of changes) {
      for (const node of type === "characterData" ? [target] : addedNodes) texts.push(node.textContent ?? "");
    }
  }).observe(document, { childList: true, characterData: true, subtree: true });
}

// open opens a URL in a new browser context. page.wrong has all errors of the page. page.hasShown
// waits until the page has shown a text, even if it shows another one by now.
export async function open(browser, url, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(patience);
  await context.addInitScript(record);
  const page = await context.newPage();
  page.hasShown = (text) => page.waitForFunction((text) => textsShown.some((shown) => shown.includes(text)), text);
  page.wrong = [];
  page.on("console", (message) => message.type() === "error" && page.wrong.push(message.text()));
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("requestfailed", (request) => page.wrong.push(`${request.url()} failed: ${request.failure().errorText}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) page.wrong.push(`${request.url()} is elsewhere`);
  });
  await page.goto(url);
  return page;
}
