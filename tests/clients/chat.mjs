// Drives www/webchat.html in two real browsers against a running gateway.
//   UAKARI_TOOLS=<folder with node_modules> node chat.mjs http://127.0.0.1:PORT OUTDIR [talk]
// The gateway must serve www/ and have a chat server with -w named "chat" and one without named "plain". Where the
// script says "restart the chat", somebody has to. With "talk" it takes no screenshots.
import { Failure, LOOKS, WAIT_MS, check, launch, ok, run, shoot, stretch, tabTo, watch } from "./chromium.mjs";

const LOG_ENTRIES_MAX = 500;
const MARKUP = "<img src=x onerror=alert(1)><b>bold</b>";
// How long the page waits for a server that knows commands.
const WELCOME_MS = 3000;

async function newContext(browser, look) {
  const context = await browser.newContext(look);
  context.setDefaultTimeout(WAIT_MS);
  await stretch(context, WELCOME_MS, "#plain");
  return context;
}

// Opens the page and joins by the keyboard alone.
async function enter(context, base, nickname, server = "chat") {
  const page = await context.newPage();
  await page.goto(`${base}/webchat.html#${server}`);
  await page.fill("#nickname", nickname);
  await page.press("#nickname", "Enter");
  await page.waitForSelector("body[data-phase=in]");
  return page;
}

// Waits for a line of the conversation that has these parts.
async function line(page, ...parts) {
  try {
    await page.waitForFunction((all) => [...document.querySelectorAll("#log .entry")]
      .some((entry) => all.every((part) => entry.textContent.includes(part))), parts);
  } catch {
    throw new Failure(`no line with ${JSON.stringify(parts)}; the log says:\n${await page.locator("#log").innerText()}`);
  }
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const log = (page) => page.locator("#log").innerText();
const member = (page, name) => page.locator("#members .member").filter({ hasText: new RegExp(`^${name}$`) });

async function twoChat(alice, bob) {
  await member(alice, "bob").waitFor();
  await member(bob, "alice").waitFor();
  ok("each sees the other among the members");
  await say(alice, "Grüße, 猿 🐒\nin two lines");
  await line(bob, "alice", "Grüße, 猿 🐒\nin two lines");
  await line(alice, "alice", "Grüße, 猿 🐒\nin two lines");
  ok("what one says both have in their logs");
  await say(bob, MARKUP);
  await line(alice, "bob", MARKUP);
  check((await alice.locator("#log img, #log b").count()) === 0, "markup in a message stays text");
  await alice.fill("#text", "   ");
  await alice.press("#text", "Enter");
  await alice.fill("#text", "x".repeat(70000));
  await alice.press("#text", "Enter");
  await line(alice, "This is too long");
  ok("what is too long is said to be, and not sent");
  await alice.fill("#text", "");
}

async function whisper(alice, bob, carol) {
  await member(alice, "bob").click();
  check((await alice.textContent("#to span")) === "To bob alone", "a click on a member whispers to it");
  await say(alice, "for your ears");
  await line(bob, "alice", "whispers to you", "for your ears");
  await line(alice, "to bob", "for your ears");
  await alice.press("#text", "Escape");
  check(await alice.isHidden("#to"), "Escape speaks to all again");
  await say(alice, "for all ears");
  await line(carol, "alice", "for all ears");
  check(!(await log(carol)).includes("for your ears"), "the third one has heard no whisper");
}

async function whoIs(alice) {
  await alice.locator("#members li").filter({ hasText: "bob" }).locator(".ask").click();
  await line(alice, "bob is at 127.0.0.1");
  ok("bob is asked who he is: his address is told");
}

async function byKeyboard(alice) {
  await alice.locator("#log").focus();
  await alice.keyboard.press("Shift+Tab");
  const focused = () => alice.evaluate(() => document.activeElement.textContent);
  const first = await focused();
  await alice.keyboard.press("ArrowDown");
  const second = await focused();
  check(first !== second && [first, second].sort().join() === "bob,carol", "arrow keys move among the members", [first, second]);
  await alice.keyboard.press("?");
  await line(alice, `${second} is at 127.0.0.1`);
  await alice.keyboard.press("Enter");
  check((await alice.textContent("#to span")) === `To ${second} alone`, "Enter on a member whispers to it");
  check((await alice.evaluate(() => document.activeElement.id)) === "text", "and the focus is where the message goes");
  await tabTo(alice, "send");
  await alice.locator("#text").focus();
  await alice.keyboard.press("Escape");
}

// A member who is no page: it says what no page would.
async function evil(context, base, alice) {
  const page = await context.newPage();
  await page.goto(base + "/webchat.html");
  await page.evaluate(({ url, markup }) => new Promise((done) => {
    const socket = new WebSocket(url);
    const name = "<img/src=x/onerror=alert(1)>";
    const say = (message) => socket.send((typeof message === "string" ? message : JSON.stringify(message)) + "\n");
    socket.onopen = () => say(`WSHello ${name}`);
    socket.onmessage = () => {
      socket.onmessage = null;
      say({ type: "hello", id: name, data: markup, color: "red;background:url(http://192.0.2.1/)" });
      say({ type: "message", id: name, data: markup, color: "#ff0000" });
      say({ type: "hello", id: "x WSWhois y\nWSHello stolen", data: "x", color: "#00ff00" });
      say({ type: "message", id: "alice", data: "under your name", color: "#ff0000" });
      say({ type: "message", id: 7, data: { toString: 1 } });
      say({ type: "message", id: "somebody", data: { toString: 1 } });
      say("[1, 2]");
      say("WSIs bob 192.0.2.66");
      say("no page at all");
      window.evil = socket;
      done();
    };
  }), { url: base.replace(/^http/, "ws") + "/chat", markup: MARKUP });
  await line(alice, "no page at all");
  const bad = await alice.locator("#log img, #log b, #members img").count();
  check(bad === 0, "markup in names stays text", bad);
  await line(alice, "alice", "not you", "under your name");
  check((await alice.textContent("#me")) === "alice", "nobody is renamed by another");
  check(!(await log(alice)).includes("192.0.2.66"), "an answer that was not asked for is not believed");
  await page.close();
  await line(alice, "<img/src=x/onerror=alert(1)> has left");
  ok("who leaves without a word is told by the server");
}

// A member with ouistiti's page, which looks for names and colours in `data` and has its own there.
async function ouistiti(context, base, alice) {
  const page = await context.newPage();
  await page.goto(base + "/webchat.html");
  await page.evaluate((url) => {
    const socket = new WebSocket(url);
    const say = (message) => socket.send((typeof message === "string" ? message : JSON.stringify(message)) + "\n");
    Object.assign(window, { say, heard: [] });
    socket.binaryType = "arraybuffer";
    socket.onopen = () => say("WSHello old");
    socket.onmessage = ({ data }) => {
      for (const line of (typeof data === "string" ? data : new TextDecoder().decode(data)).split("\n").filter(Boolean)) {
        if (line.startsWith("WSWelcome ")) say({ type: "hello", id: "old", data: { id: "old", nickname: "old", color: "#123456" } });
        else window.heard.push(JSON.parse(line));
      }
    };
  }, base.replace(/^http/, "ws") + "/chat");
  const hears = async (type, id) => {
    const found = await page.waitForFunction(([type, id]) => window.heard.find((message) => message.type === type && message.id === id), [type, id]);
    return (await found.jsonValue()).data;
  };
  const welcome = await hears("welcome", "alice");
  check(welcome.nickname === "alice" && /^#[0-9a-f]{6}$/.test(welcome.color), "ouistiti's page is welcomed as it expects", welcome);
  const newcomer = await enter(context, base, "dave");
  const hello = await hears("hello", "dave");
  check(hello.id === "dave" && hello.nickname === "dave" && /^#/.test(hello.color), "and told in its way who comes", hello);
  await newcomer.close();
  const color = await alice.locator("#members li").filter({ hasText: "old" }).evaluate((item) => item.style.getPropertyValue("--c"));
  check(color === "#123456", "its colour is found where it says it", color);
  await page.evaluate(() => {
    window.say({ type: "message", id: "old", data: "in no colour at all", color: { toString: 1 } });
    window.say({ type: "message", id: "old", data: "from the old page", color: "#123456" });
  });
  await line(alice, "old", "in no colour at all");
  await line(alice, "old", "from the old page");
  await page.evaluate(() => window.say({ type: "goodbye", id: "old", data: { name: "goodbye", color: "#123456" } }));
  await line(alice, "old has left");
  await page.close();
}

async function unread(alice, bob) {
  await alice.evaluate(() => { document.hasFocus = () => false; });
  await say(bob, "are you there?");
  await say(bob, "hello?");
  await alice.waitForFunction(() => document.title === "(2) Chat – uakari");
  ok("the title counts what was not read");
  await alice.evaluate(() => { delete document.hasFocus; dispatchEvent(new Event("focus")); });
  const title = await alice.title();
  check(title === "Chat – uakari", "and no more once it was", title);
}

async function restart(alice, bob) {
  await alice.fill("#text", "a draft");
  console.log("restart the chat");
  for (const page of [alice, bob]) await line(page, "The connection is lost");
  for (const page of [alice, bob]) await page.waitForSelector("body[data-phase=in]", { timeout: WAIT_MS });
  check((await alice.inputValue("#text")) === "a draft", "the draft is still there");
  await member(alice, "bob").waitFor();
  await member(bob, "alice").waitFor();
  await say(bob, "here again");
  await line(alice, "bob", "here again");
  ok("both are back, under their names, after the server's end");
}

async function collisionAndLeave(context, base, alice) {
  const other = await enter(context, base, "alice");
  check((await other.textContent("#me")) === "alice001", "a name that is taken gets a number");
  await member(alice, "alice001").waitFor();
  await say(alice, "hello, namesake");
  await line(other, "alice", "hello, namesake");
  await other.click("#leave");
  await line(alice, "alice001 has left");
  check((await other.getAttribute("body", "data-phase")) === "out", "Leave leaves, for good");
  await other.close();
}

// A server that knows no commands is a chat as well.
async function withoutCommands(context, base) {
  const [one, other] = await Promise.all(["dora", "emil"].map((name) => enter(context, base, name, "plain")));
  check(/^dora~\d{3}$/.test(await one.textContent("#me")), "without commands the page makes a name itself");
  await line(one, "no commands");
  await say(one, "hello, all the same");
  await line(other, "dora", "hello, all the same");
  check(await other.locator("#members .member").first().isDisabled(), "and nobody can be whispered to");
  await one.click("#leave");
  await line(other, "dora", "has left");
  check(!(await log(other)).includes("WSHello"), "what is for a server is not shown");
  for (const page of [one, other]) await page.close();
}

async function bounded(context, base, alice) {
  const count = LOG_ENTRIES_MAX + 20;
  const flood = await enter(context, base, "flood");
  await flood.evaluate((n) => { for (let i = 0; i < n; i++) { document.getElementById("text").value = `line ${i}`; document.getElementById("send").click(); } }, count);
  await line(alice, `line ${count - 1}`);
  const entries = await alice.locator("#log .entry").count();
  check(entries === LOG_ENTRIES_MAX, `the log keeps ${LOG_ENTRIES_MAX} entries`, entries);
  await flood.close();
}

async function screenshots(browser, base, outdir) {
  for (const look of LOOKS) {
    const context = await newContext(browser, look);
    const page = await context.newPage();
    await page.goto(base + "/webchat.html");
    await page.fill("#nickname", "zoë");
    await shoot(page, outdir, "webchat-door", look, false);
    await page.fill("#color", "#ffee00");
    await page.press("#nickname", "Enter");
    await page.waitForSelector("body[data-phase=in]");
    const others = [];
    for (const [name, color] of [["adam", "#000033"], ["eve", "#e0d0ff"], ["a-rather-long-name-for-a-member-of-a-chat", "#1a6b3a"]]) {
      const other = await context.newPage();
      await other.goto(base + "/webchat.html");
      await other.fill("#color", color);
      await other.fill("#nickname", name);
      await other.press("#nickname", "Enter");
      await other.waitForSelector("body[data-phase=in]");
      await say(other, `Hello, I am ${name}. ${"Some words to fill a line or two of the log. ".repeat(3)}`);
      others.push(other);
    }
    await page.bringToFront();
    await say(page, "Nice to see you all.");
    await member(others[0], "zoë").click();
    await say(others[0], "This is between us.");
    await line(page, "This is between us.");
    await page.locator("#members .ask").first().click();
    await line(page, "is at 127.0.0.1");
    await member(page, "eve").click();
    await page.fill("#text", "A secret for eve");
    await shoot(page, outdir, "webchat", look, false);
    await context.close();
    ok(`screenshots in ${look.colorScheme} at ${look.viewport.width} px, nothing wider than the window`);
  }
}

run("chat.mjs", async (base, outdir) => {
  const browsers = [await launch(), await launch()];
  try {
    const contexts = [];
    for (const browser of browsers) contexts.push(await newContext(browser));
    const seen = contexts.map((context) => watch(context, base, /^WebSocket connection to '.*\/chat' failed/));
    const alice = await enter(contexts[0], base, "alice");
    const bob = await enter(contexts[1], base, "bob");
    const carol = await enter(contexts[1], base, "carol");
    await twoChat(alice, bob);
    await whisper(alice, bob, carol);
    await whoIs(alice);
    await byKeyboard(alice);
    await evil(contexts[1], base, alice);
    await ouistiti(contexts[1], base, alice);
    await unread(alice, bob);
    await collisionAndLeave(contexts[1], base, alice);
    await withoutCommands(contexts[1], base);
    await restart(alice, bob);
    await bounded(contexts[1], base, alice);
    for (const context of contexts) await context.close();
    if (process.argv[4] !== "talk") await screenshots(browsers[0], base, outdir);
    for (const one of seen) one.check("those of the restart");
  } finally {
    for (const browser of browsers) await browser.close();
  }
});
