// Drives authority.html in a real Chromium against a running gateway.
//   UAKARI_TOOLS=<folder with node_modules> node authority.mjs http://127.0.0.1:PORT OUTDIR PASSWORD
// The gateway must serve www/ and have uakari-ca serve as "enroll", with a database of users whose root has this password.
// Writes before.pem and after.pem, which were downloaded before and after the renewal, and prints their fingerprints.
import { join } from "node:path";
import { Failure, LOOKS, WAIT_MS, check, launch, newPage, ok, run, shoot, tabTo, watch } from "./chromium.mjs";

const isOpen = (page) => page.waitForFunction(() => document.getElementById("status").dataset.state === "open");

async function open(context, base, name = "") {
  const page = await context.newPage();
  await page.goto(`${base}/authority.html${name}`);
  return page;
}

// Facts of a list: labels and values.
const facts = (page, id) => page.locator(`#${id}`).evaluate((list) =>
  Object.fromEntries([...list.querySelectorAll("dt")].map((dt) => [dt.textContent, dt.nextElementSibling.textContent])));

async function fingerprint(page) {
  const { "SHA-256": shown } = await facts(page, "facts");
  check(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/.test(shown), "the page shows the fingerprint as browsers do", shown);
  console.log(`fingerprint: ${shown}`);
  return shown;
}

async function download(page, path) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  check(download.suggestedFilename() === "ca.pem", "the file is called ca.pem", download.suggestedFilename());
  await download.saveAs(path);
  await page.locator("#said[data-kind=good]").waitFor();
}

// What the form or a button is answered.
async function managed(page) {
  const output = page.locator("#managed:is([data-kind=good], [data-kind=bad])");
  await output.waitFor();
  return { kind: await output.getAttribute("data-kind"), text: await output.textContent() };
}

async function logIn(page, user, passwd) {
  await page.fill("#login [name=user]", user);
  await page.fill("#login [name=passwd]", passwd);
  await page.click("#login button");
  return managed(page);
}

async function withoutLogin(context, base, outdir) {
  const page = await open(context, base);
  await isOpen(page);
  const shown = await facts(page, "facts");
  check(shown.State === "valid" && /^36[45]$/.test(shown["Days left"]), "the page shows the state and the days left", shown);
  check(/^\d+ \w+ \d{4}/.test(shown["Valid until"]), "and the last day", shown);
  check(Object.keys(shown).length === 4, "and no more", shown);
  check(!(await page.isVisible("#renew")), "only users who have logged in see Renew");
  const how = await page.textContent("#how");
  for (const who of ["a phone", "Firefox", "Chrome", "Java", "curl"]) {
    check(how.includes(who), `the page says how ${who} trusts it`);
  }
  check(how.split(/\.(?:\s|$)/).filter(Boolean).length === 2, "in two sentences", how);
  for (const hint of ["#unsafe", "#how + .hint"]) {
    check((await page.textContent(hint)).includes("with what uakari-ca status prints on the gateway"), "with what to compare", hint);
  }
  await fingerprint(page);
  await download(page, join(outdir, "before.pem"));
  const said = await logIn(page, "root", "wrong");
  check(said.kind === "bad" && said.text === "user or password not found", "a wrong password is refused", said);
  check(!(await page.isVisible("#renew")), "and shows nothing");
  await page.close();
}

async function renewal(context, base, outdir, password) {
  const page = await open(context, base);
  await isOpen(page);
  const before = await fingerprint(page);
  const said = await logIn(page, "root", password);
  check(said.kind === "good" && said.text === "Logged in as root.", "root logs in", said);
  check((await page.inputValue("#login [name=passwd]")) === "", "the password does not stay in its field");
  const whole = await facts(page, "whole");
  check(whole.Name.startsWith("uakari authority") && whole.Certificates.includes("0 revoked"), "root sees all", whole);
  await page.click("#renew");
  check((await page.textContent("#renew")) === "Renew now", "a renewal asks first");
  check((await page.getAttribute("#managed", "data-kind")) === "note", "and says so");
  check((await facts(page, "facts"))["SHA-256"] === before, "nothing is renewed yet");
  await page.click("#renew");
  check((await managed(page)).text === "The authority is renewed.", "the second press renews");
  await page.waitForFunction((old) => !document.getElementById("facts").textContent.includes(old), before);
  check((await fingerprint(page)) !== before, "the page shows the new certificate");
  check((await page.textContent("#renew")) === "Renew", "the next renewal asks again");
  await page.click("#leave");
  check(!(await page.isVisible("#renew")) && (await page.isVisible("#login")), "logging out hides all that needs a login");
  check((await facts(page, "whole")).Name === undefined, "and forgets it");
  await download(page, join(outdir, "after.pem"));
  await page.close();
}

async function byKeyboard(context, base, password) {
  const page = await open(context, base);
  await isOpen(page);
  await tabTo(page, "download");
  await page.keyboard.press("Tab");
  await page.keyboard.type("root");
  await page.keyboard.press("Tab");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  check((await managed(page)).kind === "good", "Enter in a field logs in");
  const focused = () => page.evaluate(() => document.activeElement.id);
  check((await focused()) === "renew", "the focus goes to Renew");
  await page.keyboard.press("Enter");
  await page.locator("#managed[data-kind=note]").waitFor();
  check((await focused()) === "renew", "and stays there for the second press");
  await tabTo(page, "leave");
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.activeElement.name)) === "user", "after the logout it is in the form");
  for (const id of ["said", "managed", "status"]) {
    const role = await page.locator(`#${id}`).evaluate((node) => node.getAttribute("role") ?? node.tagName);
    check(["OUTPUT", "status"].includes(role), `#${id} is a live region`, role);
  }
  await page.close();
}

async function unreachable(context, base) {
  const page = await open(context, base, "#nosuchserver");
  await page.locator("#status[data-state=failed]").waitFor();
  check((await page.textContent("#said")).includes("needs uakari-ca serve. With make run, give TLS=1"), "an authority that is not there is explained");
  await page.close();
}

// Markup and odd answers of a server that is not ours, in single characters.
async function oddAnswers(context, base) {
  const page = await context.newPage();
  const markup = "<img src=x onerror=alert(1)>";
  const answers = {
    status: { status: { state: markup, [markup]: markup, days_left: -3, more: { a: 1, b: null }, none: null } },
    authority: { error: { code: "failed", message: markup } },
  };
  await page.routeWebSocket(/\/odd$/, (socket) => socket.onMessage((text) => {
    for (const piece of JSON.stringify(answers[JSON.parse(text).get]) + "\n") socket.send(piece);
  }));
  await page.goto(base + "/authority.html#odd");
  await isOpen(page);
  const shown = await facts(page, "facts");
  check(shown.State === markup && shown["Days left"] === "-3" && shown.More === "1 a", "unknown facts are shown", shown);
  await page.click("#download");
  check((await page.locator("#said[data-kind=bad]").textContent()) === markup, "markup stays text");
  check((await page.locator("main img").count()) === 0, "and makes no element");
  await page.close();
}

async function screenshots(context, base, outdir, password) {
  for (const look of LOOKS) {
    const page = await newPage(context, look);
    await page.goto(base + "/authority.html");
    await isOpen(page);
    await shoot(page, outdir, "authority", look);
    const said = await logIn(page, "root", password);
    if (said.kind !== "good") throw new Failure(said.text);
    await page.click("#renew");
    await shoot(page, outdir, "authority-root", look);
    await page.goto(base + "/authority.html#nosuchserver");
    // Only the part after # changes, which loads nothing.
    await page.reload();
    await page.locator("#status[data-state=failed]").waitFor();
    await shoot(page, outdir, "authority-error", look);
    await page.close();
    ok(`screenshots in ${look.colorScheme} at ${look.viewport.width} px, nothing wider than the window`);
  }
}

run("authority.mjs", async (base, outdir) => {
  const password = process.argv[4];
  let browser;
  try {
    browser = await launch();
    const context = await browser.newContext({ acceptDownloads: true });
    context.setDefaultTimeout(WAIT_MS);
    const seen = watch(context, base, /^WebSocket connection to '.*\/nosuchserver' failed/);
    await withoutLogin(context, base, outdir);
    await renewal(context, base, outdir, password);
    await byKeyboard(context, base, password);
    await unreachable(context, base);
    await oddAnswers(context, base);
    await screenshots(context, base, outdir, password);
    seen.check("the refused WebSocket");
  } finally {
    await browser?.close();
  }
});
