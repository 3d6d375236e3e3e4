// Opens a page over https and echoes a message over wss in Firefox. Its arguments and its lines are those of
// tls_client.py, without resumed sessions; UAKARI_TOOLS names the folder whose node_modules has ws.
//
// A profile presents one certificate at most, so each CERTIFICATE has a browser of its own. It is driven by WebDriver
// BiDi (https://www.w3.org/TR/webdriver-bidi/), which needs no program beside the browser.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { own, trust } from "./nss.mjs";

const WebSocket = createRequire(process.env.UAKARI_TOOLS + "/")("ws");
const PREFERENCES = {
  "security.default_personal_cert": "Select Automatically",
  // Nothing is fetched from elsewhere.
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.safebrowsing.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "datareporting.policy.firstRunURL": "",
  "dom.security.https_first": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  // In seconds.
  "network.http.connection-timeout": 300,
  "network.http.tls-handshake-timeout": 300,
  "network.websocket.timeout.open": 300,
  "security.OCSP.enabled": 0,
  "services.settings.server": "data:,",
  "toolkit.telemetry.enabled": false,
};

class Firefox {
  waiting = new Map();
  last = 0;

  // Starts it with a profile in this folder.
  async start(profile) {
    const preferences = Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
    writeFileSync(join(profile, "user.js"), preferences.join(""));
    const command = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0", "about:blank"];
    this.process = spawn("firefox-esr", command, { env: { ...process.env, HOME: profile }, stdio: ["ignore", "ignore", "pipe"] });
    this.ended = new Promise((resolve) => this.process.on("exit", resolve));
    const address = await new Promise((resolve, reject) => {
      let said = "";
      this.process.stderr.on("data", (data) => {
        said += data;
        const found = said.match(/WebDriver BiDi listening on (\S+)/);
        if (found) resolve(found[1]);
      });
      this.ended.then((status) => reject(new Error(`firefox-esr ended with ${status}: ${said}`)));
    });
    this.socket = new WebSocket(`${address}/session`);
    this.socket.on("message", (data) => this.take(JSON.parse(data)));
    this.socket.on("close", () => this.waiting.forEach(({ reject }) => reject(new Error("firefox-esr has closed"))));
    await new Promise((resolve, reject) => this.socket.on("open", resolve).on("error", reject));
    await this.call("session.new", { capabilities: {} });
  }

  take({ id, result, error, message }) {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) waiting?.reject(new Error(`${error}: ${message}`));
    else waiting?.resolve(result);
  }

  call(method, params) {
    const id = (this.last += 1);
    this.socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  // The value of an expression, which may be a promise.
  async evaluate(context, expression) {
    const found = await this.call("script.evaluate", { expression, target: { context }, awaitPromise: true });
    if (found.type !== "success") throw new Error(found.exceptionDetails.text);
    return found.result.value;
  }

  async newPage() {
    return (await this.call("browsingContext.create", { type: "tab" })).context;
  }

  async stop() {
    if (this.socket?.readyState === WebSocket.OPEN) await this.call("browser.close", {});
    else this.process?.kill();
    await this.ended;
  }
}

async function open(firefox, context, port) {
  const url = `https://127.0.0.1:${port}/websocket.html`;
  await firefox.call("browsingContext.navigate", { context, url, wait: "complete" });
  return firefox.evaluate(context, "performance.getEntriesByType('navigation')[0].responseStatus");
}

const echo = (firefox, context, port) => firefox.evaluate(context, `new Promise((resolve) => {
  const socket = new WebSocket("wss://127.0.0.1:${port}/echo");
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({ data }) => resolve(data);
  socket.onclose = ({ code }) => resolve("closed with " + code);
})`);

async function visit(folder, certificate, targets) {
  const profile = mkdtempSync(join(tmpdir(), "uakari-firefox-"));
  const firefox = new Firefox();
  try {
    trust(profile, join(folder, "root.crt"));
    if (certificate) own(profile, ...["crt", "key"].map((kind) => join(folder, `${certificate}.${kind}`)));
    await firefox.start(profile);
    for (const target of targets) {
      const [port] = target.split(":");
      const page = await firefox.newPage();
      const status = await open(firefox, page, port).catch((error) => error.message.split("\n")[0]);
      console.log(`${target} page: ${status}`);
      console.log(`${target} echo: ${await echo(firefox, status === 200 ? page : await firefox.newPage(), port)}`);
    }
  } finally {
    await firefox.stop();
    rmSync(profile, { recursive: true, force: true });
  }
}

const [folder, ...targets] = process.argv.slice(2);
for (const certificate of new Set(targets.map((target) => target.split(":")[1]))) {
  await visit(folder, certificate, targets.filter((target) => target.split(":")[1] === certificate));
}
