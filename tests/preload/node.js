// An echo server with Node's net: node node.js PATH FOLDER
// A client that says "leave" is let go without ado. Of each that has gone, a file in FOLDER tells, which is named by
// the first thing that the client said; the file's descriptor has the number that the client's had.
const fs = require('node:fs');
const net = require('node:net');

const [path, folder] = process.argv.slice(2);
let last = -1;

net.createServer((socket) => {
  let name;
  socket.on('error', () => {});
  socket.on('data', (data) => {
    name ??= data.toString();
    if (data.toString() === 'leave') socket.destroy();
    else socket.write(data);
  });
  socket.on('close', () => {
    if (!name) return;
    const file = fs.openSync(`${folder}/${name}`, 'w');
    fs.writeSync(file, `${name} has left\n`.repeat(100));
    // Open until the next one, so that numbers change owners.
    if (last >= 0) fs.closeSync(last);
    last = file;
  });
}).listen(path);
