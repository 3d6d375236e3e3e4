// Passwords and tokens in a real browser: `node auth.mjs chromium|firefox http://127.0.0.1:PORT` or
// with https, a daemon as that of tests/access/browsers.rs. If UAKARI_AUTHORITY names the file of an authority, that is
// trusted. Its lines are "ok - WHAT"; after "the token may go now" that token is to be removed from the
// daemon's file. UAKARI_TOOLS names the folder whose node_modules has playwright-core and ws.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WAIT_MS, check, launch } from "./chromium.mjs";
import { Firefox } from "./firefox.mjs";
import { trust } from "./nss.mjs";

const TOKEN = "0123456789abcdef";
const [kind, base] = process.argv.slice(2);

// A browser has: newPage(credentials), a page without those of other pages; open(page, path), its status;
// evaluate(page, expression); stop().
class Chromium {
  async start() {
    this.browser = await launch();
  }

  async newPage(credentials) {
    const [username, password] = credentials ?? [];
    const context = await this.browser.newContext(credentials ? { httpCredentials: { username, password } } : {});
    return context.newPage();
  }

  async open(page, path) {
    return (await page.goto(base + path, { timeout: WAIT_MS })).status();
  }

  evaluate(page, expression) {
    return page.evaluate(expression);
  }

  stop() {
    return this.browser.close();
  }
}

class DrivenFirefox {
  async start() {
    this.profile = mkdtempSync(join(tmpdir(), "uakari-firefox-"));
    if (process.env.UAKARI_AUTHORITY) trust(this.profile, process.env.UAKARI_AUTHORITY);
    this.firefox = new Firefox();
    await this.firefox.start(this.profile);
    this.credentials = new Map();
    this.firefox.onEvent = (method, { context, isBlocked, request }) => {
      if (method !== "network.authRequired" || !isBlocked) return;
      // Those that were wrong are not sent again.
      const found = this.credentials.get(context);
      this.credentials.delete(context);
      const [username, password] = found ?? [];
      const answer = found
        ? { action: "provideCredentials", credentials: { type: "password", username, password } }
        : { action: "cancel" };
      this.firefox.call("network.continueWithAuth", { request: request.request, ...answer }).catch(() => {});
    };
    await this.firefox.call("session.subscribe", { events: ["network.authRequired"] });
    await this.firefox.call("network.addIntercept", { phases: ["authRequired"] });
  }

  // A user context has cookies and passwords of its own.
  async newPage(credentials) {
    const { userContext } = await this.firefox.call("browser.createUserContext", {});
    const { context } = await this.firefox.call("browsingContext.create", { type: "tab", userContext });
    if (credentials) this.credentials.set(context, credentials);
    return context;
  }

  async open(context, path) {
    await this.firefox.call("browsingContext.navigate", { context, url: base + path, wait: "complete" });
    return this.evaluate(context, "performance.getEntriesByType('navigation')[0].responseStatus");
  }

  evaluate(context, expression) {
    return this.firefox.evaluate(context, expression);
  }

  async stop() {
    await this.firefox.stop();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

// What comes of a WebSocket: what is sent comes back, or the code and the reason of its end.
const echo = (path) => `new Promise((resolve) => {
  const socket = new WebSocket("${base.replace("http", "ws")}${path}");
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({ data }) => { resolve(data); socket.close(); };
  socket.onclose = ({ code }) => resolve("closed with " + code);
})`;

// Of a page over https, the cookie is not sent without TLS.
const cookie = (value) => `document.cookie = "sid=${value}; path=/${base.startsWith("https") ? "; secure" : ""}"; 0`;

const status = (path) => `fetch("${path}", { cache: "no-store" }).then((response) => response.status)`;

async function main(browser) {
  const value = async (page, expression, wanted, what) => {
    const got = await browser.evaluate(page, expression);
    check(got === wanted, what, got);
  };
  // Basic.
  let page = await browser.newPage(["ann", "secret"]);
  check(await browser.open(page, "/basic.html") === 200, "a page with a password");
  await value(page, status("/basic.html"), 200, "another request of that page");
  await value(page, echo("/basic-echo"), "hello", "a WebSocket with the page's password");
  page = await browser.newPage(["ann", "wrong"]);
  check(await browser.open(page, "/basic.html") === 401, "no page with a wrong password");
  page = await browser.newPage();
  check(await browser.open(page, "/open.html") === 200, "a page for which no password is needed");
  await value(page, echo("/basic-echo"), "closed with 1006", "no WebSocket without a password");
  // Cookies and tokens, of a page that everybody may open.
  await value(page, status("/cookie.html"), 401, "no page without a cookie");
  await value(page, echo("/cookie-echo"), "closed with 1006", "no WebSocket without a cookie");
  await browser.evaluate(page, cookie(`${TOKEN}; samesite=strict`));
  await value(page, status("/cookie.html"), 200, "a page with a cookie");
  await value(page, echo("/cookie-echo"), "hello", "a WebSocket with a cookie");
  await value(page, echo(`/query-echo?token=${TOKEN}`), "hello", "a WebSocket with a token in the query");
  await value(page, echo("/query-echo?token=0123456789abcdeF"), "closed with 1006", "no WebSocket with another token");
  // Log out.
  await browser.evaluate(page, cookie("; max-age=0"));
  await value(page, status("/cookie.html"), 401, "no page after the logout");
  await value(page, echo("/cookie-echo"), "closed with 1006", "no WebSocket after the logout");
  // A token that ends.
  await browser.evaluate(page, cookie(`${TOKEN}; samesite=strict`));
  const open = `new Promise((resolve) => {
    const socket = new WebSocket("${base.replace("http", "ws")}/cookie-echo");
    window.ended = new Promise((end) => { socket.onclose = ({ code, reason }) => end(code + " " + reason); });
    window.ended.then(resolve);
    socket.onopen = () => resolve("open");
  })`;
  await value(page, open, "open", "a WebSocket that stays open");
  console.log("the token may go now");
  await value(page, "window.ended", "1008 access revoked", "it ends with its token");
  await value(page, echo("/cookie-echo"), "closed with 1006", "no WebSocket with an old token");
}

const browser = kind === "firefox" ? new DrivenFirefox() : new Chromium();
try {
  await browser.start();
  await main(browser);
} catch (error) {
  console.log(`not ok - ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.stop();
}
