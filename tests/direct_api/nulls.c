/* Every function of websocket.h with nothing where something is due: it says so, and goes on. */
#include <errno.h>
#include <stdio.h>

#include "websocket.h"

#define EXPECT(call, result)                                                                                       \
    do {                                                                                                           \
        long got = (long)(call), due = (long)(result);                                                             \
        if (got != due)                                                                                            \
            return printf("%s: %ld, not %ld\n", #call, got, due), 1;                                               \
    } while (0)

int main(void)
{
    ws_listener *listener = (ws_listener *)1;
    ws_client *client = (ws_client *)1;
    char byte;
    EXPECT(ws_listen(NULL, "x", 0666, 0), -EINVAL);
    EXPECT(ws_listen(&listener, NULL, 0666, 0), -EINVAL);
    EXPECT(listener == NULL, 1);
    EXPECT(ws_listen(&listener, "/nowhere/at/all", 0666, 0), -ENOENT);
    EXPECT(ws_listen(&listener, "/", 0666, 0), -ENOTSOCK);
    EXPECT(ws_listener_fileno(NULL), -EINVAL);
    EXPECT(ws_listener_nonblock(NULL, 1), -EINVAL);
    EXPECT(ws_limit(NULL, 1), -EINVAL);
    EXPECT(ws_accept(NULL, &client), -EINVAL);
    EXPECT(client == NULL, 1);
    EXPECT(ws_accept(listener, NULL), -EINVAL);
    EXPECT(ws_address(NULL, NULL, NULL), -EINVAL);
    EXPECT(ws_hello(NULL, NULL), -EINVAL);
    EXPECT(ws_fileno(NULL), -EINVAL);
    EXPECT(ws_nonblock(NULL, 1), -EINVAL);
    EXPECT(ws_report_pongs(NULL, 1), -EINVAL);
    EXPECT(ws_recv(NULL, &byte, 1, NULL), -EINVAL);
    EXPECT(ws_next_size(NULL), 0);
    EXPECT(ws_buffered(NULL), 0);
    EXPECT(ws_send(NULL, WS_TEXT, "x", 1, 0), -EINVAL);
    EXPECT(ws_ping(NULL, "x", 1), -EINVAL);
    EXPECT(ws_wants_write(NULL), 0);
    EXPECT(ws_flush(NULL), -EINVAL);
    EXPECT(ws_close(NULL, 1000, NULL), -EINVAL);
    EXPECT(ws_close_code(NULL), -EINVAL);
    EXPECT(ws_close_reason(NULL)[0], 0);
    EXPECT(ws_end(NULL, 0), -EINVAL);
    EXPECT(ws_strerror(-2147483647 - 1) == NULL, 0);
    ws_unlisten(NULL);
    return 0;
}
