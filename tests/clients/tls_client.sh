#!/usr/bin/env bash
# Fetches a page over https and shakes hands over wss with curl. Its arguments and its lines are those of tls_client.py,
# but curl cannot send a message: the line of the echo has the status.
set -euo pipefail

folder=$1
# A close frame without payload follows the handshake: curl never leaves an open WebSocket by itself.
close=$(mktemp)
trap 'rm -f "$close"' EXIT
printf '\x88\x80\0\0\0\0' >"$close"

for target in "${@:2}"; do
  options=(-sS --http1.1 --noproxy '*' --max-time 300 --cacert "$folder/root.crt" -o /dev/null -w '%{http_code}')
  port=${target%%:*} certificate=${target#*:}
  [ "$certificate" = "$target" ] ||
    options+=(--cert "$folder/$certificate.crt" --key "$folder/$certificate.key")
  handshake=(-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13'
    -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
    -X GET --data-binary "@$close" -H 'Content-Length:' -H 'Content-Type:')
  # curl reports the status, and the error after it.
  echo "$target page: $(curl "${options[@]}" "https://127.0.0.1:$port/" 2>&1 | tr '\n' ' ')"
  echo "$target echo: $(curl "${options[@]}" "${handshake[@]}" "https://127.0.0.1:$port/echo" 2>&1 | tr '\n' ' ')"
  again=$(curl -v -H 'Connection: close' "${options[@]}" "https://127.0.0.1:$port/" "https://127.0.0.1:$port/" 2>&1) || true
  if grep -qi 're-\?using session' <<<"$again"; then again=resumed; else again='a new session'; fi
  echo "$target again: $again"
done
