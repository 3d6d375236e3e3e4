// A connection to websocket_jsonrpc for the pages that call its methods: answers in any number of pieces, a connection
// that comes back, and what both of them show of it.
"use strict";
const CALL_MS = 15000, RETRY_MS = 1000, RETRY_MS_MAX = 30000, ANSWER_SIZE_MAX = 64 << 20;
// The server of ouistiti's takes the last byte of each request for a NUL.
const NO_ANSWER = 'No answer came. If this is ouistiti\'s server, the gateway needs protocol = "nul" for it.';
const $ = (id) => document.getElementById(id);
const element = (tag, className, textContent) => Object.assign(document.createElement(tag), { className, textContent });
const home = (location.protocol === "https:" ? "wss://" : "ws://") + (location.host || "localhost") + "/";

// Whole numbers beyond 2^53 as they are, where the browser tells how they were written.
function exact(key, value, context) {
  const source = context?.source;
  return typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(source ?? "") ? BigInt(source) : value;
}

class Rpc {
  #socket = null; #text = ""; #depth = 0; #isQuoted = false; #isEscaped = false; #decoder = null; #waiting = new Map(); #last = 0; #retry = RETRY_MS; #timer = 0;

  // `told` hears "connecting", "open" and "failed".
  constructor(told) { this.told = told; }

  connect(url) {
    clearTimeout(this.#timer);
    const old = this.#socket;
    this.#socket = null;
    old?.close();
    this.#fail("The connection was ended.");
    let socket;
    try {
      socket = new WebSocket(url);
    } catch (error) {
      return this.told("failed", error.message);
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    [this.#text, this.#depth, this.#isQuoted, this.#isEscaped, this.#decoder] = ["", 0, false, false, new TextDecoder()];
    this.told("connecting");
    socket.onopen = () => {
      this.#retry = RETRY_MS;
      this.told("open");
    };
    socket.onmessage = (event) => { if (socket === this.#socket) this.#received(event.data); };
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      this.#fail("The connection was lost.");
      this.told("failed");
      this.#timer = setTimeout(() => this.connect(url), this.#retry);
      this.#retry = Math.min(2 * this.#retry, RETRY_MS_MAX);
    };
  }

  // The result; an Error with `code` and `data` where the server answers with one.
  call(method, params) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("Not connected: nothing was sent."));
      const id = ++this.#last;
      const timer = setTimeout(() => this.#settle(id, ({ reject }) => reject(new Error(NO_ANSWER))), CALL_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }) + "\n");
    });
  }

  #settle(id, how) {
    const call = this.#waiting.get(id);
    if (!call) return;
    this.#waiting.delete(id);
    clearTimeout(call.timer);
    how(call);
  }

  #fail(why) {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, ({ reject }) => reject(new Error(why)));
  }

  // Each object or array is an answer, whatever is between two of them. Through a stream one may come in several
  // messages, and several in one. It may have several lines: ouistiti's server writes it so, with a NUL behind it. Each
  // character is looked at once: looking through a long one for each of its pieces would take minutes.
  #received(data) {
    const piece = typeof data === "string" ? data : this.#decoder.decode(data, { stream: true });
    let begin = 0;
    for (let at = 0; at < piece.length; at++) {
      const character = piece[at];
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#isQuoted) {
        // No string of JSON has a line break in it.
        if (character === '"' || character === "\n") this.#isQuoted = false;
        this.#isEscaped = character === "\\";
      } else if (character === '"') this.#isQuoted = this.#depth > 0;
      else if (character === "{" || character === "[") {
        if (this.#depth === 0) begin = at;
        this.#depth++;
      } else if ((character === "}" || character === "]") && this.#depth > 0) {
        this.#depth--;
        if (this.#depth > 0) continue;
        this.#answer(this.#text + piece.slice(begin, at + 1));
        this.#text = "";
      } else if (character === "\0") [this.#text, this.#depth, begin] = ["", 0, at + 1];
    }
    if (this.#depth > 0) this.#text += piece.slice(begin);
    if (this.#text.length > ANSWER_SIZE_MAX) this.#socket.close();
  }

  #answer(text) {
    let answer;
    try {
      answer = JSON.parse(text, exact);
    } catch {
      return;
    }
    // Some other server may say null.
    const { id, result, error } = Object(answer);
    this.#settle(id, ({ resolve, reject }) => {
      if (error) reject(Object.assign(new Error(error.message), { code: error.code, data: error.data }));
      else resolve(result);
    });
  }
}

// What a form is told, where it stands.
function say(output, kind, text) {
  output.dataset.kind = kind;
  output.textContent = text;
}

// The address and the status, which both pages have. `name` is the server's; `opened` is called for each connection.
function dial(name, opened) {
  const states = { connecting: "Connecting…", open: "Connected", failed: "Not connected" };
  const rpc = new Rpc((state, why) => {
    $("status").dataset.state = state;
    $("status").textContent = states[state];
    document.querySelectorAll("[data-online]").forEach((button) => { button.disabled = state !== "open"; });
    if (why) say($("dialed"), "bad", why);
    opened(state === "open");
  });
  const start = () => {
    try {
      const url = new URL($("url").value.trim(), home);
      url.protocol = url.protocol.replace("http", "ws");
      url.hash = "";
      $("url").value = $("shown").textContent = url.href;
      say($("dialed"), "", "");
      rpc.connect(url.href);
    } catch (error) {
      say($("dialed"), "bad", error.message);
    }
  };
  const given = new URLSearchParams(location.search).get("url");
  $("url").value = given || home + (location.hash.slice(1).replace(/^\/+/, "") || name);
  $("dial").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  // A link may name any server, and passwords are typed here: to one elsewhere nothing connects unasked.
  const host = URL.canParse(given ?? "", home) ? new URL(given ?? "", home).host : "";
  if (!host || host === new URL(home).host) start();
  else {
    $("dial").closest("details").open = true;
    say($("dialed"), "note", `The link that led here names a server elsewhere: ${host}. Connect only if you trust it.`);
  }
  return rpc;
}
