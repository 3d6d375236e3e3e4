#!/usr/bin/env node
// Fetches a page over https and echoes a message over wss with Node's `https` and the library `ws`. Its arguments and
// its lines are those of tls_client.py; UAKARI_TOOLS names the folder whose node_modules has ws.
'use strict';

const { readFileSync } = require('node:fs');
const https = require('node:https');
const { createRequire } = require('node:module');
const WebSocket = createRequire(process.env.UAKARI_TOOLS + '/')('ws');

function get(port, options) {
  return new Promise((resolve, reject) => {
    const request = https.get(`https://127.0.0.1:${port}/`, options, (response) => {
      const isResumed = response.socket.isSessionReused();
      response.resume();
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, isResumed }));
    });
    request.on('error', reject);
  });
}

async function fetchPage(port, options) {
  return (await get(port, { agent: false, ...options })).status;
}

async function fetchAgain(port, options) {
  // It keeps sessions, but no connections.
  const agent = new https.Agent({ keepAlive: false });
  await get(port, { agent, ...options });
  return (await get(port, { agent, ...options })).isResumed ? 'resumed' : 'a new session';
}

function echo(port, options) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://127.0.0.1:${port}/echo`, options);
    socket.on('open', () => socket.send('hello'));
    socket.on('message', (data) => {
      resolve(data);
      socket.close();
    });
    socket.on('close', (code) => reject(new Error(`closed with ${code}`)));
    socket.on('error', reject);
  });
}

async function main() {
  const [folder, ...targets] = process.argv.slice(2);
  const ca = readFileSync(`${folder}/root.crt`);
  for (const target of targets) {
    const [port, certificate] = target.split(':');
    const options = { ca };
    if (certificate) {
      options.cert = readFileSync(`${folder}/${certificate}.crt`);
      options.key = readFileSync(`${folder}/${certificate}.key`);
    }
    for (const [name, act] of [['page', fetchPage], ['echo', echo], ['again', fetchAgain]]) {
      const result = await act(port, options).catch((error) => `${error.code}: ${error.message}`);
      console.log(`${target} ${name}: ${result}`);
    }
  }
}

main();
