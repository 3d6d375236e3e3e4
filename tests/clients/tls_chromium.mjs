// Opens a page over https and echoes a message over wss in Chromium. Its arguments and its lines are those of
// tls_client.py, without client certificates and resumed sessions; UAKARI_TOOLS names the folder whose node_modules has
// playwright-core.
import { join } from "node:path";
import { WAIT_MS, launch } from "./chromium.mjs";

// The error of a refused WebSocket is in the console alone.
async function echo(page, port) {
  const errors = [];
  const listener = (message) => errors.push(message.text());
  page.on("console", listener);
  const result = await page.evaluate((url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => resolve(`closed with ${code}`);
  }), `wss://127.0.0.1:${port}/echo`);
  page.off("console", listener);
  return [result, ...errors].join(": ");
}

async function main() {
  const [folder, ...ports] = process.argv.slice(2);
  process.env.UAKARI_AUTHORITY = join(folder, "root.crt");
  const browser = await launch();
  try {
    for (const port of ports) {
      const page = await browser.newPage();
      const opened = page.goto(`https://127.0.0.1:${port}/websocket.html`, { timeout: WAIT_MS });
      const status = await opened.then((response) => response.status(), (error) => error.message.split("\n")[0]);
      console.log(`${port} page: ${status}`);
      // The browser replaces a page that it cannot open by one of its own.
      console.log(`${port} echo: ${await echo(status === 200 ? page : await browser.newPage(), port)}`);
    }
  } finally {
    await browser.close();
  }
}

main();
