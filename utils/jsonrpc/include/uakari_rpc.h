/* Libraries of methods for websocket_jsonrpc, in any language that can be called from C. No JSON library is needed:
 * parameters and results are JSON texts in UTF-8.
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
 * Memory: each side frees only what it has allocated. Arguments from the server (config, peer, method, params, reply)
 * are valid until the function returns: copy what you need later. write, quote and fail copy their arguments. The
 * result of uakari_rpc() has to stay valid for the life of the process.
 *
 * Processes: functions run in a worker process, apart from the server, one call at a time. A process that crashes,
 * exceeds the time of a call or uses too much memory is killed: its caller gets the error -32603, its context is lost
 * without `close`, and a new process opens a new one. Connections may be in different processes, or share one: shared
 * state belongs in a file or a database.
 *
 * Versions: a server accepts every version up to its own. A later version only appends to this one.
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

/* Results of functions: one of these, or an error code of the library's own. The server has a message for each of
 * these; to send another message call `fail` (JSON-RPC 2.0 section 5.1). */
#define UAKARI_RPC_OK 0
#define UAKARI_RPC_INVALID_REQUEST (-32600)
#define UAKARI_RPC_METHOD_NOT_FOUND (-32601)
#define UAKARI_RPC_INVALID_PARAMS (-32602)
#define UAKARI_RPC_INTERNAL_ERROR (-32603)

/* The client. A string that is not known is NULL. */
typedef struct uakari_rpc_peer {
    const char *address; /* without a port: "192.0.2.7", "2001:db8::7" */
    const char *id;      /* the connection's name in the gateway's log: "c12" */
} uakari_rpc_peer;

/* Receives a function's answer. write and quote return 0, or UAKARI_RPC_INTERNAL_ERROR if the answer is too long, so
 * that a function can return their result. */
typedef struct uakari_rpc_reply uakari_rpc_reply;
struct uakari_rpc_reply {
    void *server; /* the server's own */
    /* Appends to the JSON text of the result. An empty text is sent as null. */
    int (*write)(uakari_rpc_reply *reply, const char *text, size_t size);
    /* Appends these bytes as a JSON string, with quotes and escapes; invalid UTF-8 becomes U+FFFD. */
    int (*quote)(uakari_rpc_reply *reply, const char *bytes, size_t size);
    /* Makes the answer an error, and discards what was written. The message is plain text, or NULL for the usual one of
     * the code; data is JSON text, or NULL. Returns the code. */
    int (*fail)(uakari_rpc_reply *reply, int code, const char *message, const char *data);
};

/* The functions of a library, NULL if not needed; `call` is required. All strings end with a NUL. */
typedef struct uakari_rpc_library {
    uint32_t version; /* UAKARI_RPC_VERSION */

    /* Called once, when the server starts and before it listens: checks the configuration (-C, or ""; never NULL) and
     * creates what is missing. After an error, whose message is for the operator, the server does not start. */
    int (*start)(const char *config, uakari_rpc_reply *reply);

    /* Called once for each connection, before its first call. *context is NULL before, and is passed to each call. If
     * the result is not 0, the first call fails and `close` is not called. */
    int (*open)(void **context, const char *config, const uakari_rpc_peer *peer, uakari_rpc_reply *reply);

    /* Called for each call or notification. `params` is the JSON text of an array or object and `size` its length; NULL
     * and 0 without parameters. If the result is 0, the written text is the answer. */
    int (*call)(void *context, const char *method, const char *params, size_t size, uakari_rpc_reply *reply);

    /* Called at the end of the connection. */
    void (*close)(void *context);
} uakari_rpc_library;

/* The one function that a library exports. */
const uakari_rpc_library *uakari_rpc(void);

#ifdef __cplusplus
}
#endif

#endif
