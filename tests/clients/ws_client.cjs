#!/usr/bin/env node
// Talks to the gateway with the Node library `ws`.
// usage: UAKARI_TOOLS=DIR ws_client.cjs BASE        BASE as in ws://127.0.0.1:8080
//
// BASE/echo must send every message back with its type and boundaries, BASE/nosuch must not
// exist, BASE/denied must be refused by rule. Stops at the first check that fails, with exit
// status 1.
'use strict';

const assert = require('node:assert');
const { createRequire } = require('node:module');

if (process.argv.length !== 3 || !process.env.UAKARI_TOOLS) {
  console.error('usage: UAKARI_TOOLS=$(tests/install-tools) ws_client.cjs ws://HOST:PORT');
  process.exit(2);
}
// The libraries live with the tools and not beside this file.
const WebSocket = createRequire(process.env.UAKARI_TOOLS + '/')('ws');

const base = process.argv[2].replace(/\/+$/, '');
const sizes = [0, 1, 125, 126, 127, 65535, 65536, 16 * 1024 * 1024];
const clientCount = 200;
// Generous, because a debug build under a sanitizer runs this too.
const timeoutMs = 1000 * Number(process.env.UAKARI_TEST_TIMEOUT || 60);

// Bytes whose period of 251 divides no buffer size, so that a shift is noticed.
function binary(size) {
  return Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));
}

function text(size) {
  return binary(size).toString('latin1').replace(/[^ -~]/g, '.');
}

// A connection whose messages are waited for in turn; every way to end rejects the waiter.
class Client {
  constructor(name, options = {}) {
    this.messages = [];
    this.waiting = null;
    this.ended = null;
    this.socket = new WebSocket(`${base}/${name}`, {
      perMessageDeflate: false,
      maxPayload: 0,
      ...options,
    });
    this.closed = new Promise((resolve) => {
      this.socket.on('close', (code, reason) => {
        this.end(new Error(`closed with ${code} '${reason}'`));
        resolve({ code, reason: reason.toString() });
      });
    });
    this.socket.on('error', (error) => this.end(error));
    this.socket.on('message', (data, isBinary) => {
      this.messages.push(isBinary ? data : data.toString());
      this.wake();
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.on('open', resolve);
      this.socket.on('error', reject);
    });
    // Who never awaits one of these must not end the process by it.
    this.opened.catch(() => {});
  }

  static async open(name, options) {
    const client = new Client(name, options);
    await client.opened;
    return client;
  }

  end(error) {
    this.ended ??= error;
    this.wake();
  }

  wake() {
    const waiting = this.waiting;
    if (!waiting) return;
    if (this.messages.length > 0) {
      this.waiting = null;
      waiting.resolve(this.messages.shift());
    } else if (this.ended) {
      this.waiting = null;
      waiting.reject(this.ended);
    }
  }

  receive() {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.wake();
    });
  }

  async expect(wanted) {
    const got = await this.receive();
    assert.strictEqual(typeof got, typeof wanted, `got ${describe(got)}, expected ${describe(wanted)}`);
    const equal = typeof got === 'string' ? got === wanted : got.equals(wanted);
    assert(equal, `got ${describe(got)}, expected ${describe(wanted)}`);
  }

  async exchange(message) {
    this.socket.send(message);
    await this.expect(message);
  }

  async close(code, reason) {
    this.socket.close(code, reason);
    return this.closed;
  }
}

function describe(message) {
  const kind = typeof message === 'string' ? 'text' : 'binary';
  return `${kind} of ${message.length} starting ${JSON.stringify(message.slice(0, 20).toString())}`;
}

// The status of a handshake that must not succeed.
function refusal(name) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${base}/${name}`);
    socket.on('unexpected-response', (request, response) => {
      response.resume();
      request.destroy();
      resolve(response.statusCode);
    });
    socket.on('open', () => {
      socket.terminate();
      reject(new Error(`/${name} was accepted`));
    });
    socket.on('error', reject);
  });
}

async function roundTrips(options) {
  const client = await Client.open('echo', options);
  for (const size of sizes) {
    await client.exchange(text(size));
    await client.exchange(binary(size));
  }
  const extensions = client.socket.extensions;
  await client.close(1000);
  return extensions;
}

const checks = {
  async sizes() {
    await roundTrips({});
    return `text and binary of ${sizes.join(', ')} bytes`;
  },

  async 'compression offered'() {
    const agreed = await roundTrips({ perMessageDeflate: true });
    return `the same sizes with permessage-deflate offered (agreed: ${agreed || 'none'})`;
  },

  async unicode() {
    const client = await Client.open('echo');
    for (const message of ['äöüß', 'κόσμε', '日本語', '🐒🙈🙉', '\0\x7f\u0080\u07ff\u0800\uffff\u{10ffff}']) {
      await client.exchange(message);
      await client.exchange(message.repeat(9973));
    }
    await client.close(1000);
    return 'unicode of every encoded length, short and long';
  },

  async fragments() {
    const client = await Client.open('echo');
    client.socket.send('frag', { fin: false });
    client.socket.send('', { fin: false });
    // A control frame may come between fragments and must not end the message.
    const answered = new Promise((resolve) => client.socket.once('pong', resolve));
    client.socket.ping('between');
    client.socket.send('mén', { fin: false });
    client.socket.send('ted', { fin: true });
    await client.expect('fragménted');
    assert.strictEqual((await answered).toString(), 'between');
    const pieces = [1, 125, 126, 65535, 65536, 0, 7].map(binary);
    pieces.forEach((piece, i) => client.socket.send(piece, { fin: i === pieces.length - 1 }));
    await client.expect(Buffer.concat(pieces));
    await client.close(1000);
    return 'fragmented messages arrive whole, a ping between the fragments is answered';
  },

  async order() {
    const client = await Client.open('echo');
    const messages = Array.from({ length: 2000 }, (_, i) => (i % 2 ? text(i % 300) : binary(i % 300)));
    messages.forEach((message) => client.socket.send(message));
    for (const message of messages) await client.expect(message);
    await client.close(1000);
    return '2,000 messages sent without waiting come back in order';
  },

  async ping() {
    const client = await Client.open('echo');
    for (const payload of [Buffer.alloc(0), Buffer.from('x'), binary(125)]) {
      const answered = new Promise((resolve) => client.socket.once('pong', resolve));
      client.socket.ping(payload);
      const got = await answered;
      assert(payload.equals(got), `ping ${describe(payload)} was answered with ${describe(got)}`);
    }
    await client.close(1000);
    return 'pings are answered with their payload';
  },

  async close() {
    for (const [code, reason] of [[1000, ''], [1001, 'leaving'], [3000, 'ok'], [4000, 'bye'], [4999, 'é'.repeat(61)]]) {
      const client = await Client.open('echo');
      await client.exchange('hello');
      const closed = await client.close(code, reason);
      assert.strictEqual(closed.code, code, `close ${code} was echoed as ${closed.code}`);
    }
    const client = await Client.open('echo');
    const closed = await client.close();
    // 1005 is the library's name for a close frame without a code.
    assert.strictEqual(closed.code, 1005, `a close without code was echoed as ${closed.code}`);
    return 'close codes are echoed, and their absence too';
  },

  async terminate() {
    // Clients that vanish inside a message must leave the gateway and its server as they were.
    for (let i = 0; i < 50; i++) {
      const client = await Client.open('echo');
      client.socket.on('error', () => {});
      if (i % 2) {
        client.socket.send('the rest never comes', { fin: false });
      } else {
        // The head of a masked frame of 1,000 bytes and two of its bytes.
        client.socket._socket.write(Buffer.from([0x82, 0xfe, 0x03, 0xe8, 1, 2, 3, 4, 5, 6]));
      }
      await new Promise((resolve) => setTimeout(resolve, i % 5));
      client.socket.terminate();
      await client.closed;
    }
    const client = await Client.open('echo');
    await client.exchange('still there');
    await client.close(1000);
    return '50 clients that vanish inside a message do no harm';
  },

  async crowd() {
    const clients = await Promise.all(Array.from({ length: clientCount }, () => Client.open('echo')));
    await Promise.all(clients.map(async (client, number) => {
      for (let turn = 0; turn < 10; turn++) {
        const message = `client ${number} turn ${turn} ` + '.'.repeat(number);
        await client.exchange(turn % 2 ? message : Buffer.from(message));
      }
    }));
    await Promise.all(clients.map((client) => client.close(1000)));
    return `${clientCount} clients at once, 10 messages each`;
  },

  async refused() {
    for (const [name, wanted] of [['nosuch', 404], ['denied', 403]]) {
      const status = await refusal(name);
      assert.strictEqual(status, wanted, `/${name} was refused with ${status}, expected ${wanted}`);
    }
    return 'a name that does not exist gives 404, a denied one 403';
  },
};

function withTimeout(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${timeoutMs / 1000} s`)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function main() {
  for (const [name, check] of Object.entries(checks)) {
    try {
      console.log(`ok - ${name}: ${await withTimeout(check())}`);
    } catch (error) {
      console.log(`not ok - ${name}: ${error.message}`);
      process.exit(1);
    }
  }
  process.exit(0);
}

main();
