// A node of a cluster in Node.js: HTTP of its own library and WebSocket of `ws`, with the main parts of node.py.
//
// usage: node.cjs NAME ADDRESS     ADDRESS is HOST:PORT or unix:PATH
'use strict';
const { createHash } = require('node:crypto');
const { createServer } = require('node:http');
const { once } = require('node:events');
const { join } = require('node:path');
const { WebSocketServer } = require(join(process.env.UAKARI_TOOLS, 'node_modules/ws'));

const [name, address] = process.argv.slice(2);
// As in node.py.
const BLOCK_SIZE = 65521;

function block(seed) {
  const data = Buffer.alloc(BLOCK_SIZE);
  let state = seed;
  for (let at = 0; at < BLOCK_SIZE; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[at] = state >>> 24;
  }
  return data;
}

function* bodyOf(size, seed) {
  const data = block(seed);
  for (; size > 0; size -= data.length) yield data.subarray(0, Math.min(size, data.length));
}

async function sum(request) {
  const digest = createHash('sha256');
  let size = 0;
  for await (const part of request) {
    digest.update(part);
    size += part.length;
  }
  return [size, digest.digest('hex')];
}

function pairs(raw) {
  return Array.from({ length: raw.length / 2 }, (_, at) => `${raw[2 * at]}: ${raw[2 * at + 1]}`);
}

function reply(response, status, text, fields = {}) {
  response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(text), ...fields });
  response.end(text);
}

async function bytes(request, response, path, query) {
  const [size, seed] = [Number(path.split('/')[2]), Number(query.get('seed') ?? 1)];
  const digest = createHash('sha256');
  for (const part of bodyOf(size, seed)) digest.update(part);
  const hash = digest.digest('hex');
  const mode = query.get('mode') ?? 'length';
  if (mode === 'length') response.writeHead(200, { 'Content-Length': size, 'X-Sha256': hash });
  else if (mode === 'close') {
    response.useChunkedEncodingByDefault = false;
    response.writeHead(200, { Connection: 'close' });
  } else response.writeHead(200, query.has('trailers') ? { Trailer: 'X-Sum' } : {});
  if (request.method !== 'HEAD') {
    for (const part of bodyOf(size, seed)) if (!response.write(part)) await once(response, 'drain');
    if (mode === 'chunked' && query.has('trailers')) response.addTrailers({ 'X-Sum': hash });
  }
  response.end();
}

async function serve(request, response) {
  const url = new URL(request.url, 'http://node.example');
  const [path, query] = [request.url.split('?')[0], url.searchParams];
  response.setHeader('X-Node', name);
  response.setHeader('X-Target', request.url);
  const [size, hash] = await sum(request);
  if (path.startsWith('/echo') || path.startsWith('/rpc')) {
    const lines = [`node: ${name}`, `method: ${request.method}`, `target: ${request.url}`];
    lines.push(...pairs(request.rawHeaders).map((field) => `field: ${field}`).sort(), `size: ${size}`, `sha256: ${hash}`);
    lines.push(...pairs(request.rawTrailers).map((field) => `trailer: ${field}`));
    reply(response, 200, lines.join('\n') + '\n');
  } else if (path.startsWith('/bytes/')) await bytes(request, response, path, query);
  else if (path === '/sink') reply(response, 200, `${size} ${hash}\n`);
  else if (path.startsWith('/status/')) reply(response, Number(path.split('/')[2]), 'status\n');
  else if (path === '/redirect') reply(response, 302, '', { Location: query.get('to') });
  else if (path === '/cookie') {
    reply(response, 200, '', { 'Set-Cookie': [`rpcid=1.${name}; Path=${query.get('path')}; HttpOnly`, 'other=1'] });
  } else if (path === '/hints') {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    reply(response, 200, 'after hints\n');
  } else reply(response, 200, `page of ${name}\n`);
}

const server = createServer({ keepAliveTimeout: 3_600_000 }, (request, response) => {
  // A client that has left is no fault of the node.
  serve(request, response).catch(() => response.destroy());
});
server.requestTimeout = 0;
server.headersTimeout = 0;

const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: 64 << 20,
  handleProtocols: (offered) => [...offered].at(-1),
});
sockets.on('headers', (lines, request) => lines.push(`X-Node: ${name}`, `X-Target: ${request.url}`));
sockets.on('connection', (socket, request) => {
  let isNamed = request.url.startsWith('/websocket_client');
  socket.on('error', () => {});
  socket.on('pong', (payload) => payload.length && socket.send(`pong: ${payload}`));
  socket.on('message', (data, isBinary) => {
    const [command, value] = isBinary ? [] : data.toString().split(' ');
    if (command === '!ping') socket.ping('from the node');
    else if (command === '!close') socket.close(Number(value), 'by the node');
    else if (command === '!drop') socket.terminate();
    else {
      socket.send(isNamed ? Buffer.concat([Buffer.from(`${name}: `), data]) : data, { binary: isBinary });
      isNamed = false;
    }
  });
});
server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  if (request.url.startsWith('/websocket')) {
    sockets.handleUpgrade(request, socket, head, (client) => sockets.emit('connection', client, request));
  } else {
    const text = 'no WebSocket here\n';
    const fields = `X-Node: ${name}\r\nX-Target: ${request.url}\r\nContent-Length: ${text.length}`;
    socket.end(`HTTP/1.1 403 Forbidden\r\n${fields}\r\nConnection: close\r\n\r\n${text}`);
  }
});

const listening = () => {
  const at = server.address();
  console.log(`listening on ${typeof at === 'string' ? `unix:${at}` : `${at.address}:${at.port}`}`);
};
if (address.startsWith('unix:')) server.listen({ path: address.slice(5), writableAll: true }, listening);
else {
  const [host, port] = address.split(':');
  server.listen({ host, port: Number(port) }, listening);
}
