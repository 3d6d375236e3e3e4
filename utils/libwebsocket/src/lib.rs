//! libwebsocket.so: functions of libc with which an ordinary socket server, unchanged, speaks WebSocket.
