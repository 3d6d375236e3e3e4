// The first use of a server whose certificate Chromium does not know: it is refused, then accepted on the page of the
// warning; the authority that is downloaded from there is trusted by another Chromium. Its arguments are the server's port
// and a folder; UAKARI_TOOLS names the folder whose node_modules has playwright-core.
import { join } from "node:path";
import { WAIT_MS, check, launch, ok } from "./chromium.mjs";

const [port, folder] = process.argv.slice(2);
const authority = join(folder, "downloaded.pem");
const base = `https://127.0.0.1:${port}`;

async function inBrowser(act) {
  const browser = await launch();
  try {
    const context = await browser.newContext();
    context.setDefaultTimeout(WAIT_MS);
    await act(context);
  } finally {
    await browser.close();
  }
}

async function refuse(page) {
  const error = await page.goto(`${base}/websocket.html`).then(() => "none", ({ message }) => message);
  check(error.includes("ERR_CERT_AUTHORITY_INVALID"), "Chromium refuses an unknown authority", error);
}

// Echoes a message over wss from this page, and in the chat, whose pages are opened.
async function converse(context, page) {
  const heard = await page.evaluate(() => new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/echo`);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => resolve(`closed with ${code}`);
  }));
  check(heard === "hello", "the echo server answers over wss", heard);
  const [alice, bob] = await Promise.all(["alice", "bob"].map(async (name) => {
    const page = await context.newPage();
    await page.goto(`${base}/webchat.html#chat`);
    await page.fill("#nickname", name);
    await page.press("#nickname", "Enter");
    await page.waitForSelector("body[data-phase=in]", { timeout: WAIT_MS });
    return page;
  }));
  await alice.fill("#text", "Hello, Bob");
  await alice.press("#text", "Enter");
  await bob.locator("#log .entry").filter({ hasText: "Hello, Bob" }).waitFor({ timeout: WAIT_MS });
  ok("two pages chat over wss");
}

await inBrowser(async (context) => {
  const page = await context.newPage();
  await refuse(page);
  // The warning accepts the certificate when its link is pressed.
  await page.click("#details-button", { timeout: WAIT_MS });
  await page.click("#proceed-link", { timeout: WAIT_MS });
  await page.waitForURL(`${base}/websocket.html`, { timeout: WAIT_MS });
  ok("its certificate is accepted");
  await converse(context, page);
  await page.goto(`${base}/authority.html`);
  const [download] = await Promise.all([
    page.waitForEvent("download", { timeout: WAIT_MS }),
    page.click("#download", { timeout: WAIT_MS }),
  ]);
  await download.saveAs(authority);
});

process.env.UAKARI_AUTHORITY = authority;
await inBrowser(async (context) => {
  const page = await context.newPage();
  const response = await page.goto(`${base}/websocket.html`, { timeout: WAIT_MS });
  check(response.status() === 200, "with the authority in its store, Chromium opens the page");
  await converse(context, page);
});
