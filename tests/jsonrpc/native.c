/* A library of uakari_rpc.h that tries what the interface allows, and what it does not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uakari_rpc.h>

#ifndef VERSION
#define VERSION UAKARI_RPC_VERSION
#endif

static int start(const char *config, uakari_rpc_reply *reply)
{
    if (!strcmp(config, "crash"))
        abort();
    if (!strcmp(config, "code"))
        return 7;
    if (!strcmp(config, "wrong"))
        return reply->fail(reply, UAKARI_RPC_INTERNAL_ERROR, "\"wrong\" will not do: give another", NULL);
    printf("started with %s\n", config);
    fflush(stdout);
    return UAKARI_RPC_OK;
}

static int open_one(void **context, const char *config, const uakari_rpc_peer *peer, uakari_rpc_reply *reply)
{
    (void)context, (void)peer;
    if (!strcmp(config, "closed"))
        return reply->fail(reply, -32050, "closed today", NULL);
    return UAKARI_RPC_OK;
}

static int call(void *context, const char *method, const char *params, size_t size, uakari_rpc_reply *reply)
{
    int number;
    (void)context;
    if (!strcmp(method, "echo"))
        return reply->write(reply, params, size);
    if (!strcmp(method, "parts")) {
        reply->write(reply, "[\n", 2);
        reply->quote(reply, "\"\xff\n", 3);
        return reply->write(reply, "\n]\n", 3);
    }
    if (!strncmp(method, "no json", 7))
        return reply->write(reply, "hello", 5);
    if (!strcmp(method, "fail"))
        return reply->fail(reply, -5, "no", "no json either");
    if (!strcmp(method, "fail all the same")) {
        reply->write(reply, "1", 1);
        reply->fail(reply, 5, NULL, "[1]");
        return UAKARI_RPC_OK;
    }
    if (sscanf(method, "return %d", &number) == 1)
        return number;
    return UAKARI_RPC_METHOD_NOT_FOUND;
}

const uakari_rpc_library *uakari_rpc(void)
{
    static const uakari_rpc_library library = {VERSION, start, open_one, call, NULL};
    return &library;
}
