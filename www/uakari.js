// Functions shared by all pages. A page loads this file before its own script.
"use strict";
const $ = (id) => document.getElementById(id);
const element = (tag, className, textContent) => Object.assign(document.createElement(tag), { className, textContent });
// The gateway that served the page.
const home = (location.protocol === "https:" ? "wss://" : "ws://") + (location.host || "localhost") + "/";
// The value of ?url=, or null.
const linked = new URLSearchParams(location.search).get("url");

// The initial address of a page: ?url=, else the name after #, else `name`.
function initialAddress(name) {
  return linked || home + (location.hash.slice(1).replace(/^\/+/, "") || name);
}

// The WebSocket URL of an address as typed: a URL, host:port/name, or a name of this gateway. Throws if it is not one.
function addressOf(typed) {
  let value = typed.trim();
  // new URL() would take the host of "host:port/name" for a scheme or a path.
  if (/^(\[[^\]]+\]|[^\/?#:\[]+):\d+(?![^\/?#])/.test(value)) value = home.split("/")[0] + "//" + value;
  const url = new URL(value, home);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(url.protocol)) throw new Error(`${url.protocol} is not ws: or wss:`);
  url.hash = "";
  return url.href;
}

// The first `count` code units of a text, without half of a surrogate pair at the end.
const clip = (text, count) => text.slice(0, count).replace(/[\uD800-\uDBFF]$/, "");

// A whole number with commas: 1,000,000.
const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
