/* A server in C on the functions of websocket.h: sends everything back to all its clients at once, and prints what it
 * hears of them. usage: echo PATH [LIMIT [END_MS]] */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "websocket.h"

#define CLIENTS_MAX 64

static ws_client *clients[CLIENTS_MAX];
static char message[1 << 20];
static unsigned end_ms = 5000;
static volatile sig_atomic_t is_stopping;

static void on_signal(int signal)
{
    (void)signal;
    is_stopping = 1;
}

static void say(const char *what, int error)
{
    printf("%s: %d %s\n", what, error, ws_strerror(error));
    fflush(stdout);
}

static void greet(ws_client *client)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    const void *hello;
    char text[INET6_ADDRSTRLEN] = "unix";
    ssize_t at, hello_size = ws_hello(client, &hello);
    ws_address(client, (struct sockaddr *)&address, &size);
    if (address.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, text, sizeof text);
    printf("client %s, address of %u, hello of %zd: ", text, (unsigned)size, hello_size);
    for (at = 0; at < hello_size; at++) {
        unsigned char byte = ((const unsigned char *)hello)[at];
        putchar(byte > ' ' && byte < 127 ? byte : '.');
    }
    putchar('\n');
    fflush(stdout);
}

static void accept_all(ws_listener *listener)
{
    ws_client *client;
    int error, at;
    while ((error = ws_accept(listener, &client)) != -EAGAIN) {
        if (error) {
            say("accept", error);
            continue;
        }
        greet(client);
        for (at = 0; at < CLIENTS_MAX && clients[at]; at++)
            ;
        if (at == CLIENTS_MAX) {
            ws_end(client, 0);
            continue;
        }
        ws_nonblock(client, 1);
        clients[at] = client;
    }
}

/* 0, or why the client goes. */
static int echo(ws_client *client)
{
    int opcode, error;
    ssize_t size;
    do {
        size = ws_recv(client, message, sizeof message, &opcode);
        if (size == -EAGAIN)
            return 0;
        if (size < 0)
            return (int)size;
        if (size == 4 && memcmp(message, "quit", 4) == 0)
            error = ws_close(client, 4000, "as you wish");
        else if (size == 4 && memcmp(message, "ping", 4) == 0)
            error = ws_ping(client, "?", 1);
        else
            error = ws_send(client, opcode, message, (size_t)size, ws_buffered(client) ? WS_MORE : 0);
        if (error)
            return error;
        /* Who does not take its echoes is not heard until it does. */
    } while (ws_buffered(client) && !ws_wants_write(client));
    return 0;
}

static void serve(int at, short events)
{
    ws_client *client = clients[at];
    int error = events & POLLOUT ? ws_flush(client) : 0;
    if (error == 0 && events)
        error = echo(client);
    else if (error == -EAGAIN)
        error = 0;
    if (error) {
        printf("%d %s\n", ws_close_code(client), ws_close_reason(client));
        say("end", error);
        printf("waited: %d\n", ws_end(client, end_ms));
        fflush(stdout);
        clients[at] = NULL;
    }
}

int main(int count, char **words)
{
    struct pollfd fds[CLIENTS_MAX + 1];
    struct sigaction action;
    ws_listener *listener;
    int at, error;
    if (count < 2)
        return 2;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    error = ws_listen(&listener, words[1], 0600, 0);
    if (error) {
        say("listen", error);
        return 1;
    }
    ws_listener_nonblock(listener, 1);
    if (count > 2)
        ws_limit(listener, (size_t)atol(words[2]));
    if (count > 3)
        end_ms = (unsigned)atol(words[3]);
    while (!is_stopping) {
        fds[CLIENTS_MAX].fd = ws_listener_fileno(listener);
        fds[CLIENTS_MAX].events = POLLIN;
        for (at = 0; at < CLIENTS_MAX; at++) {
            fds[at].fd = clients[at] ? ws_fileno(clients[at]) : -1;
            fds[at].events = clients[at] && ws_wants_write(clients[at]) ? POLLOUT : POLLIN;
            fds[at].revents = 0;
        }
        if (poll(fds, CLIENTS_MAX + 1, -1) < 0)
            continue;
        for (at = 0; at < CLIENTS_MAX; at++)
            if (clients[at])
                serve(at, fds[at].revents);
        if (fds[CLIENTS_MAX].revents)
            accept_all(listener);
    }
    for (at = 0; at < CLIENTS_MAX; at++)
        if (clients[at]) {
            ws_close(clients[at], 1001, NULL);
            ws_end(clients[at], 1000);
        }
    ws_unlisten(listener);
    return 0;
}
