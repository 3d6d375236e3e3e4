#!/usr/bin/env bash
# Shakes hands with the gateway by plain curl, and gets a file.
# usage: curl.sh BASE        BASE as in http://127.0.0.1:8080
#
# BASE/echo must be a WebSocket, BASE/ the index page.
set -euo pipefail

base=${1:?usage: curl.sh http://HOST:PORT}
base=${base%/}
answer=$(mktemp)
close=$(mktemp)
trap 'rm -f "$answer" "$close"' EXIT

fail() {
  echo "not ok - $1"
  sed 's/^/    /' "$answer" | head -n 20
  exit 1
}

# curl never leaves an open WebSocket by itself, so a close frame without payload follows the
# handshake; a proxy in the environment must not come between.
printf '\x88\x80\0\0\0\0' >"$close"
time=${UAKARI_TEST_TIMEOUT:-60}
curl -s -S -i -N --http1.1 --noproxy '*' --max-time "$time" -o "$answer" \
  -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
  -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
  -X GET --data-binary "@$close" -H 'Content-Length:' -H 'Content-Type:' \
  "$base/echo" || fail "handshake: curl ended with $?"
# Without the frames behind the head.
tr -d '\r' <"$answer" | sed -n '1,/^$/p' >"$answer.lf" && mv "$answer.lf" "$answer"
head -n 1 "$answer" | grep -q '^HTTP/1\.1 101 ' || fail 'handshake: expected status 101'
# The key and its answer are the sample of RFC 6455, section 1.3.
grep -qix 'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=' "$answer" || fail 'handshake: wrong Sec-WebSocket-Accept'
grep -qix 'Upgrade: websocket' "$answer" || fail 'handshake: no Upgrade: websocket'
grep -qix 'Connection: Upgrade' "$answer" || fail 'handshake: no Connection: Upgrade'
echo 'ok - handshake: 101 with the accept key of RFC 6455'

curl -s -S -i --http1.1 --noproxy '*' --max-time "$time" -o "$answer" "$base/" || fail "file: curl ended with $?"
head -n 1 "$answer" | grep -q '^HTTP/1\.1 200 ' || fail 'file: expected status 200'
grep -qi '^Content-Type: text/html' "$answer" || fail 'file: expected Content-Type text/html'
echo 'ok - file: the index page is text/html'
