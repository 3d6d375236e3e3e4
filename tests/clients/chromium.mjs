// What the scripts that drive pages have in common: a real Chromium, what it must not do, and how a script ends.
import { createRequire } from "node:module";

export const WAIT_MS = 10000;
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

// Everything a page must not do, gathered over all pages of the run, but for these lines of the console.
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
      const isExpected = expected.test(message.text());
      if (["error", "warning"].includes(message.type()) && !isExpected) seen.errors.push(message.text());
    });
  });
  return seen;
}

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

// Opens a browser for `drive`, and closes it whatever comes.
export async function browse(drive) {
  if (!process.env.UAKARI_TOOLS) throw new Failure("UAKARI_TOOLS must name the folder whose node_modules has playwright-core");
  const { chromium } = createRequire(process.env.UAKARI_TOOLS + "/")("playwright-core");
  let browser;
  try {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: CHROMIUM_ARGS });
    const context = await browser.newContext();
    context.setDefaultTimeout(WAIT_MS);
    await drive(context);
  } finally {
    await browser?.close();
  }
}

// The end of a script: one line where it went wrong.
export async function finish(run) {
  try {
    await run();
  } catch (error) {
    console.error(`not ok - ${error instanceof Failure ? error.message : error.stack}`);
    process.exit(1);
  }
}
