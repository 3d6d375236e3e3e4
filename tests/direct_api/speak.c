/* A server in C on the functions of websocket.h: sends to each client with calls that block until the buffer is full, and
 * ends. usage: speak PATH */
#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "websocket.h"

static char message[15000] = "x";

int main(int count, char **words)
{
    ws_listener *listener;
    ws_client *client;
    /* The buffer is full at 64,000 bytes, where the kernel begins a new segment on a loopback interface: a record fits
     * in part. The first message has another size for each client, since the client's window ends anywhere in a record. */
    int size = 32000, clients = 0, queued, total;
    if (count < 2 || ws_listen(&listener, words[1], 0600, 0))
        return 1;
    for (;;) {
        if (ws_accept(listener, &client))
            continue;
        setsockopt(ws_fileno(client), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        total = ++clients * 700;
        ws_send(client, WS_BINARY, message, total, 0);
        do
            total += ws_send(client, WS_BINARY, message, sizeof message, 0) == 0 ? sizeof message : 500000;
        while (ioctl(ws_fileno(client), SIOCOUTQ, &queued) == 0 && queued < 65000 && total < 500000);
        ws_end(client, 0);
        printf("spoken %d\n", total);
        fflush(stdout);
    }
}
