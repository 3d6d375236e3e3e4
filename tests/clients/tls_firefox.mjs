// Opens a page over https and echoes a message over wss in Firefox. Its arguments and its lines are those of
// tls_client.py, without resumed sessions; UAKARI_TOOLS names the folder whose node_modules has ws.
//
// A profile presents one certificate at most, so each CERTIFICATE has a browser of its own.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Firefox } from "./firefox.mjs";
import { own, trust } from "./nss.mjs";

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
