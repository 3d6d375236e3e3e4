/* Servers that speak WebSocket on the client's own connection, behind uakari's direct mode. Link with -lwebsocket.
 *
 * The gateway does the HTTP handshake and hands the client's connection over to the server's socket file. From then
 * on server and client talk without it: whole messages, pings, the closing handshake (RFC 6455) are here.
 *
 *     ws_listener *listener;
 *     ws_client *client;
 *     static char message[65536];
 *     int opcode;
 *     ssize_t size;
 *     int error = ws_listen(&listener, "/run/websocket/echo", 0666, 0);
 *     while (!error || error == WS_EPLAIN) {
 *         if ((error = ws_accept(listener, &client)) != 0)
 *             continue;
 *         while ((size = ws_recv(client, message, sizeof message, &opcode)) >= 0)
 *             ws_send(client, opcode, message, size, ws_buffered(client) ? WS_MORE : 0);
 *         ws_end(client, 1000);
 *     }
 *
 * Results: 0 or a number of bytes is success; a negative number is an error: -EAGAIN and the like of errno(3), or one
 * of those below; ws_strerror has a sentence for each. errno itself means nothing. A NULL where something is needed is
 * -EINVAL, and of functions that only say yes or no it is no.
 *
 * Threads: a listener or a client is used by one thread at a time, different ones by different threads at once. No
 * function changes signal handlers; none raises SIGPIPE. Signals do not interrupt a call that waits.
 *
 * Waiting: ws_accept, ws_recv, ws_send, ws_ping and ws_flush wait unless told not to (ws_nonblock). Of a client's
 * descriptor SO_RCVTIMEO limits ws_recv and SO_SNDTIMEO the others (socket(7)); -EAGAIN says that the time was over.
 * Answers to pings and close frames are not waited for: no client keeps a server waiting by pings or by taking nothing.
 *
 * fork(2): parent and child may each use what they opened, and one of them what was open before.
 *
 * A program that calls ws_listen speaks WebSocket itself: from then on the library's stand-ins for functions of libc,
 * which other programs use by LD_PRELOAD, leave all its sockets alone.
 *
 * SPDX-License-Identifier: MIT
 * Copyright (c) 2026 The uakari maintainers
 */
#ifndef UAKARI_WEBSOCKET_H
#define UAKARI_WEBSOCKET_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a message is. WS_PONG comes only where ws_report_pongs asked for it, and has no bytes. */
#define WS_TEXT 1
#define WS_BINARY 2
#define WS_PONG 10

/* A flag of ws_send: other messages follow at once. */
#define WS_MORE 1

/* The protocol number that programs for ouistiti give to socket(2) for text messages. Not for the functions here. */
#define WS_PROTOCOL_TEXT 153

/* Errors of our own. After the first three of them the conversation is over: call ws_end. */
#define WS_ECLOSED (-5001)   /* the client sent a close frame, which was answered: see ws_close_code */
#define WS_EPROTOCOL (-5002) /* the client broke the protocol, or its message was too long, and was told so */
#define WS_EENDED (-5003)    /* the connection has ended, or is closing */
#define WS_EPLAIN (-5004)    /* a plain local client came and was closed: there is WebSocket alone here */
#define WS_EHANDOVER (-5005) /* the descriptor handed over is not a client */
#define WS_ETEXT (-5006)     /* a text, or a close reason, is not UTF-8 */

typedef struct ws_listener ws_listener;
typedef struct ws_client ws_client;

/* Makes the socket file `path` with the access rights `mode` (such as 0666: who may write to it may connect) and
 * listens, with room for `backlog` connections; 0: 1024. A file that a dead server left is replaced. The folder has to
 * be there.
 * -EADDRINUSE: a server listens there. -ENOTSOCK: a file that is not a socket is in the way. */
int ws_listen(ws_listener **listener, const char *path, unsigned mode, int backlog);

/* Ends it, and removes its file. Its clients stay. NULL is nothing. */
void ws_unlisten(ws_listener *listener);

/* A descriptor for poll(2), select(2) or epoll(7) that is readable when ws_accept has something to say. For nothing
 * else: it is not the socket. */
int ws_listener_fileno(const ws_listener *listener);

/* Whether ws_accept returns -EAGAIN where it would have to wait. It is so for no listener at the beginning. */
int ws_listener_nonblock(ws_listener *listener, int on);

/* Bytes that a message may have of clients accepted from now on; at the beginning 1 MiB. Who sends a longer one is
 * closed with 1009. */
int ws_limit(ws_listener *listener, size_t message_size_max);

/* The next client. It waits where it has to, whatever the listener does.
 * WS_EPLAIN and WS_EHANDOVER: somebody came who is no client and was closed; accept the next. -EMFILE and the like:
 * there is no descriptor for another client, who waits and will be told of again at once. */
int ws_accept(ws_listener *listener, ws_client **client);

/* The client's address, as accept(2) gives it: `*size` bytes at most are written to `address`, and `*size` becomes
 * the size of the whole. AF_UNIX: it came to a UNIX socket of the gateway and has no address. */
int ws_address(const ws_client *client, struct sockaddr *address, socklen_t *size);

/* Who the client is and what it asked for, where the gateway has `hello` switched on: a record for hello_parse of
 * hello.h, and its size; 0: there is none. It is valid until ws_end. */
ssize_t ws_hello(const ws_client *client, const void **hello);

/* The client's connection, for poll(2), select(2) or epoll(7). For nothing else: reading and writing is the library's.
 * Take it out of an epoll set (EPOLL_CTL_DEL) before ws_end: the gateway may have its copy of the connection a moment
 * longer, and as long as it has, closing alone does not end the events.
 * Readable: call ws_recv until it returns -EAGAIN or ws_buffered is 0, since several messages may have come at once.
 * Level-triggered: -EAGAIN comes too where a client sends pings as fast as they are received. */
int ws_fileno(const ws_client *client);

/* Whether calls return -EAGAIN where they would have to wait. It is so for no client at the beginning, and changes
 * nothing about the descriptor. */
int ws_nonblock(ws_client *client, int on);

/* Whether ws_recv returns pongs, as WS_PONG and 0 bytes. Unless asked for they are dropped. */
int ws_report_pongs(ws_client *client, int on);

/* Receives a message, whole, into `buffer`, and returns its size; of a text no NUL is put behind it. What it is goes
 * to `*opcode` unless that is NULL. Pings are answered here.
 * -EMSGSIZE: it does not fit into `size` bytes; it waits for a call with as many as ws_next_size says.
 * -EAGAIN: there is none yet. WS_ECLOSED, WS_EPROTOCOL, WS_EENDED: there will be none. */
ssize_t ws_recv(ws_client *client, void *buffer, size_t size, int *opcode);

/* The size of the message that did not fit; 0: there is none. */
size_t ws_next_size(const ws_client *client);

/* 1: something was received that ws_recv has not returned yet, and which poll(2) does not tell of. */
int ws_buffered(const ws_client *client);

/* Sends a message of `size` bytes, WS_TEXT (which must be UTF-8) or WS_BINARY. It is taken whole or not at all.
 * With WS_MORE it may wait for the messages behind it, so that they leave together: until a ws_send without it,
 * ws_flush, or a ws_recv that finds nothing buffered.
 * Of a client that does not block, what the connection does not take waits in the library: see ws_wants_write.
 * -EAGAIN: more than 256 KiB wait; the message was not taken. WS_EENDED: a close frame was sent already. */
int ws_send(ws_client *client, int opcode, const void *bytes, size_t size, int flags);

/* Asks for a pong. 125 bytes at most. */
int ws_ping(ws_client *client, const void *bytes, size_t size);

/* 1: something waits for the connection to take it: watch for POLLOUT, and call ws_flush then. A server that answers
 * does well not to receive meanwhile. What waits because of WS_MORE alone does not count. */
int ws_wants_write(const ws_client *client);

/* Sends what waits. -EAGAIN: some of it waits still. */
int ws_flush(ws_client *client);

/* Sends a close frame behind all that was sent: `code` is 1000 to 1003, 1007 to 1014 or 3000 to 4999, `reason` UTF-8,
 * cut at 123 bytes, or NULL. It does not wait. Nothing can be sent behind it. Go on with ws_recv until WS_ECLOSED or
 * WS_EENDED, or let ws_end wait; messages that still come are dropped. */
int ws_close(ws_client *client, int code, const char *reason);

/* After WS_ECLOSED the code of the client's close frame; 1005: it had none. Before that, and where the connection
 * ended without one, 1006. */
int ws_close_code(const ws_client *client);

/* Its reason, up to the first NUL in it; never NULL. It is valid until ws_end. */
const char *ws_close_reason(const ws_client *client);

/* Waits at most `wait_ms` milliseconds until what was sent is taken and the client has ended the connection, then
 * closes and frees the client. 1: the client has ended it; 0: the time was over first, or it broke. A connection that
 * is closed while its client still sends breaks, and the client may not hear the last words: give it a second. */
int ws_end(ws_client *client, unsigned wait_ms);

/* A sentence for an error number. It is not to be freed; for those of errno(3) it is that of strerror(3). */
const char *ws_strerror(int number);

#ifdef __cplusplus
}
#endif

#endif
