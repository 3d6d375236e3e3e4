// Drives the shipped pages in a real Chromium against a running gateway.
//   UAKARI_TOOLS=<folder with node_modules> node browser.mjs http://127.0.0.1:PORT OUTDIR
// The gateway must serve www/ and have an echo server named "echo" and none named "nosuchserver".
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, LOOKS, WAIT_MS, check, launch, newPage, ok, run, shoot, tabTo, watch } from "./chromium.mjs";

const FILE_SIZE = 70000;
const LOG_ENTRIES_MAX = 500;
// Waits for one more log entry of this kind than `before`, and returns its parts.
async function entry(page, kind, before = 0) {
  const item = page.locator(`#log .entry[data-kind=${kind}]`).nth(before);
  try {
    await item.waitFor({ state: "attached", timeout: WAIT_MS });
  } catch {
    throw new Failure(`no ${kind} entry number ${before + 1}; the log says:\n${await page.locator("#log").innerText()}`);
  }
  return item.evaluate((node) => ({
    body: node.querySelector(".body").textContent,
    rtt: node.querySelector(".rtt").textContent,
    data: { ...node.dataset },
  }));
}

const count = (page, kind) => page.locator(`#log .entry[data-kind=${kind}]`).count();
const kinds = (page) => page.locator("#log .entry").evaluateAll((all) => all.map((node) => node.dataset.kind));

async function connect(page, url) {
  const before = await count(page, "CONNECTED");
  if (url) await page.fill("#url", url);
  await page.click("#connect");
  return entry(page, "CONNECTED", before);
}

async function echoText(page, text) {
  const before = await count(page, "RESPONSE");
  await page.fill("#text", text);
  await page.click("#send");
  return entry(page, "RESPONSE", before);
}

// A stream server may answer one message with several, so the sum is what counts.
async function echoFile(page, path, size) {
  await page.setInputFiles("#file", path);
  await page.click("#sendfile");
  try {
    await page.waitForFunction((n) => window.lastBinary.byteLength >= n, size, { timeout: WAIT_MS });
  } catch {
    const got = await page.evaluate(() => window.lastBinary.byteLength);
    throw new Failure(`the file came back with ${got} of ${size} bytes`);
  }
  return page.evaluate(() => {
    const bytes = new Uint8Array(window.lastBinary);
    let binary = "";
    for (let at = 0; at < bytes.length; at += 4096) binary += String.fromCharCode(...bytes.subarray(at, at + 4096));
    return btoa(binary);
  });
}

async function mainPath(context, base, path, bytes) {
  const websockets = base.replace(/^http/, "ws");
  const page = await context.newPage();
  await page.goto(base + "/");
  check((await page.textContent("h1")).includes("uakari is running"), "the index page says that uakari is running");
  check((await page.textContent("#base")) === websockets, "the index page names this host in its example");
  check((await page.locator("img").evaluate((image) => image.naturalWidth)) > 0, "the logo, which is the icon too, is shown");
  await page.click("a[href='websocket.html']");
  await page.waitForURL(base + "/websocket.html");
  ok("the link leads to websocket.html");
  check((await page.inputValue("#url")) === `${websockets}/echo`, "the address is prefilled from the location");

  const connected = await connect(page);
  check(connected.body === `${websockets}/echo`, "CONNECTED to /echo", connected);
  const text = await echoText(page, "Grüße, 猿 🐒");
  check(text.body === "Grüße, 猿 🐒", "the RESPONSE has the text that was sent", text);
  check(/^\d+(\.\d)? ms$/.test(text.rtt), "the RESPONSE shows its round-trip time", text);
  const summary = await page.locator("#rtt dd").allTextContents();
  check(summary.join().match(/^(\S+ ms,){3}1$/), "the summary shows last, min and median", summary);

  const markup = "<img src=x onerror=alert(1)><b>bold</b>";
  const inert = await echoText(page, markup);
  check(inert.body === markup && (await page.locator("#log img, #log b").count()) === 0, "markup in a message stays text", inert);

  const back = Buffer.from(await echoFile(page, path, bytes.length), "base64");
  check(back.length === bytes.length, `the file came back with ${bytes.length} bytes`, back.length);
  const hash = (data) => createHash("sha256").update(data).digest("hex");
  check(hash(back) === hash(bytes), "the file came back byte for byte");
  const last = await page.locator("#log .entry[data-kind=RESPONSE]").last().getAttribute("data-echo");
  check(last === "same", "the page itself says that the bytes are the same", last);

  await page.click("#disconnect");
  const closed = await entry(page, "DISCONNECTED");
  check(closed.data.code === "1000" && closed.data.clean === "true", "DISCONNECTED with code 1000, clean", closed);
  return page;
}

async function refusedName(page, base) {
  await page.click("#clear");
  check((await page.locator("#log .entry").count()) === 0, "Clear empties the log");
  await page.fill("#url", base.replace(/^http/, "ws") + "/nosuchserver");
  await page.click("#connect");
  const closed = await entry(page, "DISCONNECTED");
  const order = await kinds(page);
  check(order.join() === "ERROR,DISCONNECTED", "a refused name gives ERROR, then DISCONNECTED", order);
  check(closed.data.code === "1006" && closed.data.clean === "false", "a refused name closes with 1006", closed);
}

async function closeWithReason(page, base) {
  await connect(page, base.replace(/^http/, "ws") + "/echo");
  const before = await count(page, "DISCONNECTED");
  await page.click("#closing summary");
  await page.fill("#code", "4001");
  await page.fill("#reason", "enough");
  await page.click("#disconnect");
  const closed = await entry(page, "DISCONNECTED", before);
  check(closed.data.clean === "true", "a close with code 4001 and a reason is answered cleanly", closed);
}

async function boundedLog(page, base) {
  await page.goto(base + "/websocket.html?url=" + encodeURIComponent("/echo"));
  await connect(page);
  const sends = LOG_ENTRIES_MAX + 20;
  await page.evaluate((n) => { for (let i = 0; i < n; i++) document.getElementById("send").click(); }, sends);
  await page.locator("#log .entry").nth(LOG_ENTRIES_MAX - 1).waitFor({ state: "attached" });
  const entries = await page.locator("#log .entry").count();
  check(entries === LOG_ENTRIES_MAX, `the log keeps ${LOG_ENTRIES_MAX} entries`, entries);
  await page.click("#disconnect");
  await entry(page, "DISCONNECTED");
}

async function keyboardPath(context, base) {
  const page = await context.newPage();
  await page.goto(base + "/");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForURL(base + "/websocket.html");
  for (const id of ["url", "protocol", "connect"]) await tabTo(page, id);
  ok("Tab reaches address, subprotocol and Connect in this order, each with visible focus");
  await page.keyboard.press("Enter");
  await entry(page, "CONNECTED");
  check((await page.evaluate(() => document.activeElement.id)) === "text", "Enter connects and moves on to the text");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  const answer = await entry(page, "RESPONSE");
  check(answer.body === "one\ntwo", "Shift+Enter starts a line and Enter sends", answer);
  for (const id of ["send", "file", "clear", "log"]) await tabTo(page, id);
  ok("Tab reaches Send, the file, Clear and the log in this order");
  await page.locator("#text").focus();
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Shift+Tab");
  check((await page.evaluate(() => document.activeElement.id)) === "disconnect", "Shift+Tab leads back to Disconnect");
  await page.keyboard.press("Enter");
  const closed = await entry(page, "DISCONNECTED");
  check(closed.data.code === "1000", "Enter on Disconnect closes with 1000", closed);
  check((await page.evaluate(() => document.activeElement.id)) === "connect", "the focus is back on Connect");
  await page.close();
}

async function screenshots(context, base, outdir, path) {
  for (const look of LOOKS) {
    const page = await newPage(context, look);
    await page.goto(base + "/");
    await shoot(page, outdir, "index", look);
    await page.goto(base + "/websocket.html#echo");
    await connect(page);
    await echoText(page, "Hello, uakari");
    await echoText(page, "A longer line. ".repeat(80));
    await echoFile(page, path, FILE_SIZE);
    await page.click("#disconnect");
    await entry(page, "DISCONNECTED");
    await page.fill("#url", "/nosuchserver");
    await page.click("#connect");
    await entry(page, "DISCONNECTED", 1);
    await connect(page, "/echo");
    await echoText(page, "Back again");
    await shoot(page, outdir, "websocket", look);
    await page.close();
    ok(`screenshots in ${look.colorScheme} at ${look.viewport.width} px, nothing wider than the window`);
  }
}

run("browser.mjs", async (base, outdir) => {
  const scratch = mkdtempSync(join(tmpdir(), "uakari-browser-"));
  const path = join(scratch, "bytes.bin");
  // Every other byte is 0xff, so that no part of it can pass as UTF-8 text.
  const bytes = Buffer.from(Array.from({ length: FILE_SIZE }, (_, i) => (i % 2 ? 0xff : (i * 7919) >> 5 & 0xff)));
  writeFileSync(path, bytes);
  let browser;
  try {
    browser = await launch();
    const context = await browser.newContext();
    context.setDefaultTimeout(WAIT_MS);
    const seen = watch(context, base, /^WebSocket connection to '.*\/nosuchserver' failed/);
    const page = await mainPath(context, base, path, bytes);
    await refusedName(page, base);
    await closeWithReason(page, base);
    await boundedLog(page, base);
    await page.close();
    await keyboardPath(context, base);
    await screenshots(context, base, outdir, path);
    seen.check("the refused WebSocket");
  } finally {
    await browser?.close();
    rmSync(scratch, { recursive: true, force: true });
  }
});
