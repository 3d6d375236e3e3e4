/* Libraries of methods for websocket_jsonrpc, in any language that can be called from C. No JSON library is needed:
 * parameters come as JSON text in UTF-8, and results go as such.
 *
 *     #include <uakari_rpc.h>
 *
 *     static int call(void *context, const char *method, const char *params, size_t size, uakari_rpc_reply *reply)
 *     {
 *         if (strcmp(method, "ping"))
 *             return UAKARI_RPC_METHOD_NOT_FOUND;
 *         return reply->write(reply, "\"pong\"", 6);
 *     }
 *
 *     const uakari_rpc_library *uakari_rpc(void)
 *     {
 *         static const uakari_rpc_library library = {UAKARI_RPC_VERSION, 0, 0, call, 0};
 *         return &library;
 *     }
 *
 *     cc -shared -fPIC -o ping.so ping.c && websocket_jsonrpc -L ./ping.so
 *
 * Memory: each side frees what it allocated, and nobody frees anything of the other's. What the server gives (config,
 * peer, method, params, reply) is valid until the function returns: copy what is to stay. What a function writes to
 * its reply is copied before write, quote or fail returns. What uakari_rpc() returns stays valid for ever.
 *
 * Processes: functions run in a process of their own, apart from the server; one call at a time. A process that
 * crashes, or takes longer than the server allows, or takes too much memory, is killed: its caller gets the error
 * -32603, its context is lost without `close`, and a new process opens a new one. Connections may be in different
 * processes, or share one: what all of them are to know belongs into a file or a database.
 *
 * Versions: a server takes every version up to its own. A later version only appends to what is here.
 *
 * SPDX-License-Identifier: MIT
 * Copyright (c) 2026 The uakari maintainers
 */
#ifndef UAKARI_RPC_H
#define UAKARI_RPC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version that this header describes. */
#define UAKARI_RPC_VERSION 1

/* What functions return: one of these, or an error code of the library's own. The server knows the messages of
 * these, so that returning one is enough; whoever has more to say calls `fail` (JSON-RPC 2.0 section 5.1). */
#define UAKARI_RPC_OK 0
#define UAKARI_RPC_INVALID_REQUEST (-32600)
#define UAKARI_RPC_METHOD_NOT_FOUND (-32601)
#define UAKARI_RPC_INVALID_PARAMS (-32602)
#define UAKARI_RPC_INTERNAL_ERROR (-32603)

/* Who is at the other end. A string that is not known is NULL. */
typedef struct uakari_rpc_peer {
    const char *address; /* without a port: "192.0.2.7", "2001:db8::7" */
    const char *id;      /* the connection's name in the gateway's log: "c12" */
} uakari_rpc_peer;

/* Where a function's answer goes. The functions return 0, or UAKARI_RPC_INTERNAL_ERROR where the answer gets too long;
 * so they may stand behind `return`. */
typedef struct uakari_rpc_reply uakari_rpc_reply;
struct uakari_rpc_reply {
    void *server; /* the server's own */
    /* Appends to the result's JSON text. Where nothing was written the result is null. */
    int (*write)(uakari_rpc_reply *reply, const char *text, size_t size);
    /* Appends these bytes as a JSON string, with its quotes and escapes; what is not UTF-8 becomes U+FFFD. */
    int (*quote)(uakari_rpc_reply *reply, const char *bytes, size_t size);
    /* Makes the answer an error. The message is plain text, NULL: the usual one of the code; data is JSON text, or
     * NULL. What was written is forgotten. Returns the code. */
    int (*fail)(uakari_rpc_reply *reply, int code, const char *message, const char *data);
};

/* A library. A function that is not needed is NULL; `call` always is needed. All strings end with a NUL. */
typedef struct uakari_rpc_library {
    uint32_t version; /* UAKARI_RPC_VERSION */

    /* Once, when the server starts and before a client comes: looks at the configuration (-C; never NULL) and makes
     * what is missing. The message of `fail` is for the operator; the server does not start then. */
    int (*start)(const char *config, uakari_rpc_reply *reply);

    /* Once for each connection, before its first call. What is put into *context comes with each call; it is NULL
     * before. With another result than 0, `close` is not called, and the call that was the reason fails. */
    int (*open)(void **context, const char *config, const uakari_rpc_peer *peer, uakari_rpc_reply *reply);

    /* Once for each call or notification. `params` is the text of a JSON array or object and `size` its length; NULL
     * and 0 where there are none. With the result 0, what was written is the result. */
    int (*call)(void *context, const char *method, const char *params, size_t size, uakari_rpc_reply *reply);

    /* The connection ended. */
    void (*close)(void *context);
} uakari_rpc_library;

/* The one function that a library exports. */
const uakari_rpc_library *uakari_rpc(void);

#ifdef __cplusplus
}
#endif

#endif
