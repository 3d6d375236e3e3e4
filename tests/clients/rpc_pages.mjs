// Drives webauth.html and websql.html in a real Chromium against a running gateway.
//   UAKARI_TOOLS=<folder with node_modules> node rpc_pages.mjs http://127.0.0.1:PORT OUTDIR PASSWORD
// The gateway must serve www/ and have two servers of JSON-RPC: "auth" with authrpc.so and a new database whose root has
// this password, and "sql" with jsonsql.so and write=1 on a database with a table `person` of Ada and Grace; "ouistiti"
// answers every request with a row {name: "ouistiti", type: "table"}, as ouistiti's server writes it.
import { Failure, LOOKS, WAIT_MS, check, launch, newPage, ok, run, shoot, stretch, tabTo, watch } from "./chromium.mjs";

const MARKUP = "<img src=x onerror=alert(1)><b>bold</b>";
// How long the pages wait for an answer.
const CALL_MS = 15000;

const isOpen = (page) => page.waitForFunction(() => document.getElementById("status").dataset.state === "open");

// Fills a form of webauth.html and sends it; what it is told, and how.
async function send(page, form, fields) {
  for (const [name, value] of Object.entries(fields)) await page.fill(`#${form} [name=${name}]`, value);
  await page.click(`#${form} button`);
  if (form === "rmuser" && fields.user) {
    const button = await page.textContent(`#${form} button`);
    if (button !== `Remove ${fields.user} for good`) throw new Failure(`removing asks first, but says ${button}`);
    await page.click(`#${form} button`);
  }
  const output = page.locator(`#${form} output:is([data-kind=good], [data-kind=bad])`);
  await output.waitFor();
  return { kind: await output.getAttribute("data-kind"), text: await output.textContent() };
}

async function expect(page, form, fields, kind, part) {
  const said = await send(page, form, fields);
  check(said.kind === kind && said.text.includes(part), `${form} of ${JSON.stringify(fields.user)}: ${part}`, said);
}

async function users(context, base, password) {
  const page = await context.newPage();
  await page.goto(base + "/webauth.html");
  await isOpen(page);
  const none = { passwd: "", old: "", new: "", confirm: "", group: "", home: "" };
  const fields = (form, given) => {
    const names = { auth: ["passwd"], adduser: ["passwd", "group", "home"], passwd: ["old", "new", "confirm"], rmuser: ["passwd"] };
    return { ...Object.fromEntries(names[form].map((name) => [name, none[name]])), ...given };
  };
  const step = (form, given, kind, part) => expect(page, form, fields(form, given), kind, part);
  await step("auth", { user: "" }, "bad", "incomplete command");
  await step("adduser", { user: "alice", passwd: "first" }, "bad", "only the root group may do that");
  await step("auth", { user: "root", passwd: "wrong" }, "bad", "user or password not found");
  await step("auth", { user: "root", passwd: password }, "good", "root is right");
  check((await page.textContent("#who")).includes("logged in as root of the group root"), "the page says who is logged in");
  check((await page.inputValue("#auth [name=passwd]")) === "", "the password does not stay in its field");
  await step("adduser", { user: "alice", passwd: "first", home: "/home/alice" }, "good", "user added");
  await step("adduser", { user: "alice", passwd: "first" }, "bad", "user exists");
  await step("adduser", { user: MARKUP, passwd: MARKUP, home: MARKUP }, "good", "user added");
  await step("auth", { user: MARKUP, passwd: MARKUP }, "good", `home: ${MARKUP}`);
  check((await page.textContent("#who")).includes(MARKUP), "markup in a name stays text");
  check((await page.locator("main img, main b, #who img, #who b").count()) === 0, "and makes no element");
  await step("rmuser", { user: MARKUP, passwd: MARKUP }, "good", "user removed");
  check((await page.textContent("#who")) === "", "who removed himself is logged in no more");
  await step("auth", { user: "alice", passwd: "first" }, "good", "alice is right\ngroup: users\nhome: /home/alice\nstored as: argon2id");
  await step("passwd", { user: "alice", old: "first", new: "second", confirm: "third" }, "bad", "confirm new password");
  await step("passwd", { user: "alice", old: "first", new: "second", confirm: "second" }, "good", "password changed");
  await step("auth", { user: "alice", passwd: "first" }, "bad", "user or password not found");
  await step("auth", { user: "alice", passwd: "second" }, "good", "alice is right");
  await step("rmuser", { user: "alice", passwd: "second" }, "good", "user removed");
  await step("auth", { user: "alice", passwd: "second" }, "bad", "user or password not found");
  // However slow the machine is, the waits outgrow it soon.
  let said = "";
  for (let tries = 0; tries < 12 && !said.startsWith("too many attempts: wait "); tries++) {
    said = (await send(page, "auth", fields("auth", { user: "nobody", passwd: "guess" }))).text;
  }
  check(said.startsWith("too many attempts: wait "), "who guesses is told to wait", said);
  await page.close();
}

async function usersByKeyboard(context, base, password) {
  const page = await context.newPage();
  await page.goto(base + "/webauth.html");
  await isOpen(page);
  await page.locator("#auth [name=user]").focus();
  await page.keyboard.type("root");
  await page.keyboard.press("Tab");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.locator("#auth output[data-kind=good]").waitFor();
  ok("Enter in a field logs in");
  await page.close();
}

const answer = async (page) => {
  const output = page.locator("#answer:is([data-kind=good], [data-kind=bad]), #answer[data-kind=note]:not(:text('Waiting'))");
  await output.waitFor();
  return { kind: await output.getAttribute("data-kind"), text: await output.textContent() };
};

async function ask(page, query) {
  await page.fill("#query", query);
  await page.click("#run");
  return answer(page);
}

// As `ask`, for a query that ends by itself: on a slow machine the server may have to be asked again.
async function askWell(page, query) {
  let said = await ask(page, query);
  for (let tries = 0; tries < 10 && said.text.includes("it took longer than"); tries++) {
    console.log(`once more: ${said.text}`);
    said = await ask(page, query);
  }
  return said;
}

const cells = (page) => page.locator("#rows tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));

async function queries(context, base) {
  const page = await context.newPage();
  await page.goto(base + "/websql.html");
  await isOpen(page);
  await page.click("#tables button[data-name=person]");
  await page.locator("#columns dt").first().waitFor();
  check((await cells(page)).join("|") === "id,name|1,Ada|2,Grace", "a table shows its rows", await cells(page));
  check((await page.locator("#columns dt").allTextContents()).join() === "id,name", "and its columns");
  check((await page.inputValue("#query")) === 'select * from "person" limit 100', "the query says how to get them");

  let said = await ask(page, "select name, id * 4611686018427387904 - 1 as big, null as none, x'00ff' as bytes from person where id = 1");
  check(said.kind === "good", "a query is answered", said);
  check((await cells(page))[1].join() === "Ada,4611686018427387903,NULL,AP8=", "numbers are exact, blobs base64", await cells(page));
  said = await ask(page, "selec 1");
  check(said.kind === "bad" && said.text.includes("syntax error"), "a bad query says why, where it stands", said);
  check((await page.locator("#rows tr").count()) === 0, "and shows no old rows");
  said = await ask(page, "select 1; drop table person");
  check(said.kind === "bad" && said.text.includes("one statement"), "two statements are refused", said);
  said = await ask(page, `create table "${MARKUP}" ("${MARKUP}" TEXT)`);
  check(said.kind === "good" && said.text.includes("Query OK"), "a statement without rows says so", said);
  said = await ask(page, `insert into "${MARKUP}" values ('${MARKUP}')`);
  check(said.text.includes("1 changed"), "a change says how many rows it changed", said);
  await page.click("#refresh");
  await page.locator("#tables button", { hasText: "<img" }).click();
  await page.locator("#columns dt", { hasText: "<img" }).waitFor();
  check((await cells(page)).join("|") === `${MARKUP}|${MARKUP}`, "markup in names and values stays text", await cells(page));
  check((await page.locator("main img, main b").count()) === 0, "and makes no element");

  said = await askWell(page, "with recursive n(i) as (select 1 union all select i + 1 from n) select i, hex(zeroblob(100)) as z from n");
  check(said.kind === "note" && said.text.startsWith("Not all of it: more than 1000 rows"), "a huge result says that it was cut", said);
  check((await page.textContent("#count")) === "1,000 rows", "and shows what came");
  said = await ask(page, "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n");
  check(said.text.includes("it took longer than 2000 ms"), "a query without end is ended", said);
  // Through a stream this comes in many messages.
  said = await askWell(page, "with recursive n(i) as (select 1 union all select i + 1 from n limit 90) select i, hex(zeroblob(5000)) || 'é' as z from n");
  check(said.kind === "good" && (await cells(page)).length === 91, "an answer in many pieces is put together", said);
  await page.close();
}

async function queriesByKeyboard(context, base) {
  const page = await context.newPage();
  await page.goto(base + "/websql.html");
  await isOpen(page);
  await page.locator("#tables button").first().waitFor();
  for (const id of ["refresh", "query"]) await tabTo(page, id);
  await page.keyboard.press("Control+A");
  await page.keyboard.type("select 7 as seven");
  await page.keyboard.press("Control+Enter");
  check((await answer(page)).kind === "good" && (await cells(page)).join("|") === "seven|7", "Ctrl+Enter runs the query");
  for (const id of ["run", "frame"]) await tabTo(page, id);
  ok("Tab reaches tables, query, Run and the rows in this order");
  await page.close();
}

async function unreachable(context, base) {
  const page = await context.newPage();
  await page.goto(base + "/websql.html#nosuchserver");
  await page.locator("#status[data-state=failed]").waitFor();
  check(await page.locator("#run").isDisabled(), "without a connection nothing can be sent");
  await page.click("summary");
  await page.fill("#url", "/sql");
  await page.click("#dial button");
  await isOpen(page);
  ok("another address connects");
  await page.close();
}

// What a link names is not trusted with passwords.
async function elsewhere(context, base) {
  const page = await context.newPage();
  for (const address of ["ws://elsewhere.invalid/auth", "elsewhere.invalid:80/auth"]) {
    await page.goto(base + "/webauth.html?url=" + encodeURIComponent(address));
    check((await page.textContent("#dialed")).includes("elsewhere.invalid"), `a server elsewhere is named: ${address}`);
    check((await page.getAttribute("#status", "data-state")) === "idle", "and not connected unasked");
    check(await page.locator("#auth button").isDisabled(), "so that nothing can be sent to it");
  }
  await page.goto(base + "/webauth.html?url=" + encodeURIComponent("/auth"));
  await isOpen(page);
  ok("one of this host is connected");
  await page.close();
}

// Answers as no server of ours gives them: other JSON between, single characters, the newline apart, none at all.
async function oddAnswers(context, base) {
  const page = await context.newPage();
  await page.routeWebSocket(/\/odd$/, (socket) => socket.onMessage((text) => {
    const { id, params } = JSON.parse(text);
    const answer = JSON.stringify({ jsonrpc: "2.0", id, result: [{ said: params.query ?? "", type: "table", name: "}" }] });
    const whole = `null\n[]\n7\nno JSON}\n${answer}\n`;
    if (params.query === "whole") socket.send(answer);
    else if (params.query === "never") return;
    else if (params.query === "lines") socket.send(JSON.stringify(JSON.parse(answer), null, 2));
    else for (const piece of params.query === "joined" ? [whole] : whole) socket.send(piece);
  }));
  await page.goto(base + "/websql.html#odd");
  await isOpen(page);
  for (const query of ["cut", "joined", "whole", "lines", '[{"\\', "cut"]) {
    const said = await ask(page, query);
    check(said.kind === "good" && (await cells(page))[1][0] === query, `an answer that comes ${query} among others`, said);
  }
  await page.clock.install();
  await page.fill("#query", "never");
  await page.click("#run");
  await page.clock.fastForward(20000);
  const hint = (await answer(page)).text;
  check(hint.includes('No answer came') && hint.includes('protocol = "nul"'), "no answer at all has a hint", hint);
  await page.close();
}

// A server that reads and answers as ouistiti's does: it drops the last byte, and its answer has several lines.
async function ouistitis(context, base) {
  const page = await context.newPage();
  await page.goto(base + "/websql.html#ouistiti");
  await isOpen(page);
  await page.locator("#tables button[data-name=ouistiti]").waitFor();
  const said = await ask(page, "select 1");
  check(said.kind === "good" && (await cells(page)).join("|") === "name,type|ouistiti,table", "the page works with ouistiti's server", said);
  await page.close();
}

async function screenshots(context, base, outdir, password) {
  for (const look of LOOKS) {
    const page = await newPage(context, look);
    await page.goto(base + "/webauth.html");
    await isOpen(page);
    await send(page, "auth", { user: "root", passwd: password });
    await send(page, "adduser", { user: "root", passwd: "x" });
    await page.fill("#rmuser [name=user]", "somebody");
    await page.click("#rmuser button");
    await shoot(page, outdir, "webauth", look);
    await page.goto(base + "/websql.html");
    await isOpen(page);
    await page.click("#tables button[data-name=person]");
    await page.locator("#columns dt").first().waitFor();
    await ask(page, "with recursive n(i) as (select 1 union all select i + 1 from n) select i as number, i / 7.0 as part, 'row ' || i as name, null as none, hex(zeroblob(40)) as zeros from n");
    await shoot(page, outdir, "websql", look);
    await ask(page, "select * from nobody");
    await shoot(page, outdir, "websql-error", look);
    await page.close();
    ok(`screenshots in ${look.colorScheme} at ${look.viewport.width} px, nothing wider than the window`);
  }
}

run("rpc_pages.mjs", async (base, outdir) => {
  const password = process.argv[4];
  let browser;
  try {
    browser = await launch();
    const context = await browser.newContext();
    context.setDefaultTimeout(WAIT_MS);
    await stretch(context, CALL_MS, "#odd");
    const seen = watch(context, base, /^WebSocket connection to '.*\/nosuchserver' failed/);
    await usersByKeyboard(context, base, password);
    await users(context, base, password);
    await queries(context, base);
    await queriesByKeyboard(context, base);
    await unreachable(context, base);
    await elsewhere(context, base);
    await oddAnswers(context, base);
    await ouistitis(context, base);
    await screenshots(context, base, outdir, password);
    seen.check("the refused WebSocket");
  } finally {
    await browser?.close();
  }
});
