// The connection of webauth.html and websql.html to websocket_jsonrpc: calls, answers in any number of pieces,
// reconnection, and the display of its state. Needs uakari.js.
"use strict";
const CALL_MS = 15000, RETRY_MS = 1000, RETRY_MS_MAX = 30000, ANSWER_SIZE_MAX = 64 << 20;
// ouistiti's server takes the last byte of each request for a NUL.
const NO_ANSWER = 'No answer came. If this is ouistiti\'s server, the gateway needs protocol = "nul" for it.';

// A reviver for JSON.parse: integers beyond 2^53 become BigInt, if the browser passes their source text.
function exact(key, value, context) {
  const source = context?.source;
  return typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(source ?? "") ? BigInt(source) : value;
}

class Rpc {
  #socket = null; #text = ""; #depth = 0; #isQuoted = false; #isEscaped = false; #decoder = null; #waiting = new Map(); #last = 0; #retry = RETRY_MS; #timer = 0;

  // `told` is called with "connecting", "open" or "failed".
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

  // Resolves to the result. Rejects with an Error, which has `code` and `data` if it is the server's.
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

  // Each object or array is an answer, whatever separates them. In a stream, one answer may arrive in several messages,
  // and several in one. ouistiti's server writes answers of several lines that end with a NUL. Each character is
  // examined only once: parsing a long answer again for each of its pieces would take minutes.
  #received(data) {
    const piece = typeof data === "string" ? data : this.#decoder.decode(data, { stream: true });
    let begin = 0;
    for (let at = 0; at < piece.length; at++) {
      const character = piece[at];
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#isQuoted) {
        // A JSON string contains no line break.
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
    // Another kind of server may send null.
    const { id, result, error } = Object(answer);
    this.#settle(id, ({ resolve, reject }) => {
      if (error) reject(Object.assign(new Error(error.message), { code: error.code, data: error.data }));
      else resolve(result);
    });
  }
}

// Shows the outcome of a form below it. authority.html uses it too.
function say(output, kind, text) {
  output.dataset.kind = kind;
  output.textContent = text;
}

// Sets up the address form and the status. `name` is the default name; `opened` is called whenever the state changes.
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
      const url = addressOf($("url").value);
      $("url").value = $("shown").textContent = url;
      say($("dialed"), "", "");
      rpc.connect(url);
    } catch (error) {
      say($("dialed"), "bad", error.message);
    }
  };
  $("url").value = initialAddress(name);
  $("dial").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  // A link may name any server, and users type passwords here: never connect to another host unless the user asks.
  let host = "";
  try {
    if (linked) host = new URL(addressOf(linked)).host;
  } catch { /* start() shows the error. */ }
  if (!host || host === new URL(home).host) start();
  else {
    $("dial").closest("details").open = true;
    say($("dialed"), "note", `This link names a server on another host: ${host}. Connect only if you trust it.`);
  }
  return rpc;
}
