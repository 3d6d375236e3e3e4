// Drives a real Firefox by WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/), which needs no program beside the
// browser. UAKARI_TOOLS names the folder whose node_modules has ws.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

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

export class Firefox {
  waiting = new Map();
  last = 0;
  // Called with the name and the parameters of each event to which the session has subscribed.
  onEvent = () => {};

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

  take({ id, result, error, message, method, params }) {
    if (method) return this.onEvent(method, params);
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
