/* Methods in C: cc -shared -fPIC -o visits.so visits.c && websocket_jsonrpc -L ./visits.so -C 1 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uakari_rpc.h>

struct visit { long count; char address[64]; }; /* a connection */

static int open_visit(void **context, const char *config, const uakari_rpc_peer *peer, uakari_rpc_reply *reply)
{
    struct visit *visit = *context = calloc(1, sizeof *visit);
    if (!visit)
        return reply->fail(reply, UAKARI_RPC_INTERNAL_ERROR, "no memory", NULL);
    visit->count = atol(config);
    snprintf(visit->address, sizeof visit->address, "%s", peer->address ? peer->address : "unknown");
    return UAKARI_RPC_OK;
}

static int call(void *context, const char *method, const char *params, size_t size, uakari_rpc_reply *reply)
{
    struct visit *visit = context;
    char text[64];
    double a, b;
    (void)size;
    if (!strcmp(method, "count")) /* -> the next number */
        return reply->write(reply, text, snprintf(text, sizeof text, "%ld", visit->count++));
    if (!strcmp(method, "whoami")) /* -> "192.0.2.7" */
        return reply->quote(reply, visit->address, strlen(visit->address));
    if (strcmp(method, "add")) /* [a, b] -> their sum */
        return UAKARI_RPC_METHOD_NOT_FOUND;
    if (!params || sscanf(params, " [ %lf , %lf ]", &a, &b) != 2)
        return reply->fail(reply, UAKARI_RPC_INVALID_PARAMS, NULL, "\"give two numbers\"");
    return reply->write(reply, text, snprintf(text, sizeof text, "%.15g", a + b));
}

const uakari_rpc_library *uakari_rpc(void)
{
    static const uakari_rpc_library library = {UAKARI_RPC_VERSION, NULL, open_visit, call, free};
    return &library;
}
