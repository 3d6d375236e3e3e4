//! libwebsocket.so: functions of libc with which an ordinary socket server, unchanged, speaks WebSocket; and functions
//! for servers that speak it themselves.

/// For servers that speak WebSocket themselves: include/websocket.h.
pub mod api;
