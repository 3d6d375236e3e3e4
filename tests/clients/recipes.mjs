// Opens the pages of docs/recipes.md in a real Chromium.
//   UAKARI_TOOLS=<folder with node_modules> node recipes.mjs BASE OUTDIR echo      BASE/websocket.html talks to BASE/echo
//   UAKARI_TOOLS=<folder with node_modules> node recipes.mjs BASE OUTDIR novnc     BASE/vnc.html shows a screen
import { join } from "node:path";
import { WAIT_MS, check, launch, run } from "./chromium.mjs";

async function echo(context, base) {
  const page = await context.newPage();
  await page.goto(`${base}/websocket.html#echo`);
  await page.click("#connect");
  await page.locator("#log .entry[data-kind=CONNECTED]").waitFor({ state: "attached", timeout: WAIT_MS });
  await page.fill("#text", "Grüße");
  await page.click("#send");
  const response = page.locator("#log .entry[data-kind=RESPONSE] .body");
  await response.first().waitFor({ state: "attached", timeout: WAIT_MS });
  check((await response.first().textContent()) === "Grüße", "the page and the backend talk through the proxy");
}

async function novnc(context, base, outdir) {
  const page = await context.newPage();
  await page.goto(`${base}/vnc.html?autoconnect=true`);
  await page.locator("html.noVNC_connected").waitFor({ state: "attached", timeout: WAIT_MS });
  const canvas = page.locator("#noVNC_container canvas");
  const size = await canvas.evaluate((node) => [node.width, node.height]);
  check(size.join("x") === "640x480", "noVNC shows the screen of the VNC server", size);
  await page.screenshot({ path: join(outdir, "novnc.png") });
}

run("recipes.mjs", async (base, outdir) => {
  const browser = await launch();
  try {
    const context = await browser.newContext();
    context.setDefaultTimeout(WAIT_MS);
    await { echo, novnc }[process.argv[4]](context, base, outdir);
  } finally {
    await browser.close();
  }
});
