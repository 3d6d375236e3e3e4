// What the scripts that drive a real Chromium have in common.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { trust } from "./nss.mjs";

export const WAIT_MS = 60000;
const CHROMIUM_ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export class Failure extends Error {}

export function ok(what) {
  console.log(`ok - ${what}`);
}

export function check(condition, what, seen) {
  if (!condition) throw new Failure(seen === undefined ? what : `${what}; seen: ${JSON.stringify(seen)}`);
  ok(what);
}

// Everything a page must not do, gathered over all pages of a context.
export function watch(context, base, expected) {
  const origin = new URL(base).origin;
  const seen = { foreign: [], bad: [], errors: [] };
  const known = (url) => url.startsWith("data:") || new URL(url).origin.replace(/^ws/, "http") === origin;
  context.on("request", (request) => { if (!known(request.url())) seen.foreign.push(request.url()); });
  context.on("response", (response) => {
    if (response.status() >= 400) seen.bad.push(`${response.status()} ${response.url()}`);
  });
  context.on("page", (page) => {
    page.on("websocket", (socket) => { if (!known(socket.url())) seen.foreign.push(socket.url()); });
    page.on("pageerror", (error) => seen.errors.push(String(error)));
    page.on("console", (message) => {
      const isBad = ["error", "warning"].includes(message.type());
      if (isBad && !expected.test(message.text())) seen.errors.push(message.text());
    });
  });
  seen.check = (but) => {
    check(seen.foreign.length === 0, "no request went to another origin", seen.foreign);
    check(seen.bad.length === 0, "no page request failed", seen.bad);
    check(seen.errors.length === 0, `no console errors but ${but}`, seen.errors);
  };
  return seen;
}

// Lets pages wait for an answer however slow the machine is: for those without this hash, timers of `ms` never end.
export function stretch(context, ms, but) {
  return context.addInitScript(([ms, but]) => {
    const start = window.setTimeout;
    window.setTimeout = (act, time, ...more) => start(act, time === ms && location.hash !== but ? 2 ** 30 : time, ...more);
  }, [ms, but]);
}

// Presses Tab until the element with this id has the focus, and shows it.
export async function tabTo(page, id) {
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const node = document.activeElement;
      return { id: node.id, outline: getComputedStyle(node).outlineStyle };
    });
    if (at.id !== id) continue;
    if (at.outline === "none") throw new Failure(`#${id} shows no focus`);
    return;
  }
  throw new Failure(`Tab never reaches #${id}`);
}

// How people look at pages: what a new context, or a page's own settings, take.
export const LOOKS = ["light", "dark"].flatMap((colorScheme) =>
  [390, 1280].map((width) => ({ colorScheme, viewport: { width, height: width < 500 ? 844 : 900 } })));

// A page of this context for one of the looks.
export async function newPage(context, { colorScheme, viewport }) {
  const page = await context.newPage();
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize(viewport);
  return page;
}

// Takes a picture of a page, which must be no wider than its window.
export async function shoot(page, outdir, name, { colorScheme, viewport: { width } }, fullPage = true) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (over > 0) throw new Failure(`${name} is ${over} px too wide at ${width} px`);
  await page.screenshot({ path: join(outdir, `${name}-${colorScheme}-${width}.png`), fullPage });
}

// Starts it. If UAKARI_AUTHORITY names the file of an authority, that is trusted.
export async function launch() {
  if (!process.env.UAKARI_TOOLS) throw new Failure("UAKARI_TOOLS must name the folder whose node_modules has playwright-core");
  const { chromium } = createRequire(process.env.UAKARI_TOOLS + "/")("playwright-core");
  const options = { executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: CHROMIUM_ARGS, timeout: 2 * WAIT_MS };
  const authority = process.env.UAKARI_AUTHORITY;
  if (!authority) return chromium.launch(options);
  const home = mkdtempSync(join(tmpdir(), "uakari-chromium-"));
  trust(join(home, ".pki/nssdb"), authority);
  const browser = await chromium.launch({ ...options, env: { ...process.env, HOME: home } });
  browser.on("disconnected", () => rmSync(home, { recursive: true, force: true }));
  return browser;
}

// Runs a script with the gateway's address and a folder for screenshots, and says what failed.
export async function run(name, script) {
  const [base, outdir] = process.argv.slice(2);
  if (!base || !outdir) {
    console.error(`usage: node ${name} http://127.0.0.1:PORT OUTDIR`);
    process.exit(1);
  }
  mkdirSync(outdir, { recursive: true });
  try {
    await script(base.replace(/\/+$/, ""), outdir);
  } catch (error) {
    console.error(`not ok - ${error instanceof Failure ? error.message : error.stack}`);
    process.exit(1);
  }
}
