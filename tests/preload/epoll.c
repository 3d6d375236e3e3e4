/* An echo server: epoll(7) and sockets that do not block; what is not taken waits in memory. It says who comes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
    int fd;
    size_t start, end;
    char buffer[65536];
};

static int epoll;

static void watch(int command, int fd, unsigned events, void *data)
{
    struct epoll_event event = { .events = events, .data.ptr = data };
    epoll_ctl(epoll, command, fd, &event);
}

static void meet(int listener)
{
    struct sockaddr_storage who = { 0 };
    socklen_t size = sizeof who;
    char text[INET_ADDRSTRLEN] = "";
    int fd = accept4(listener, (struct sockaddr *)&who, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *client = calloc(1, sizeof *client);

    if (fd < 0 || !client)
        return;
    if (who.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&who)->sin_addr, text, sizeof text);
    printf("family %d size %u %s\n", who.ss_family, size, text);
    fflush(stdout);
    client->fd = fd;
    watch(EPOLL_CTL_ADD, fd, EPOLLIN, client);
}

static void turn(struct client *client)
{
    for (;;) {
        ssize_t size;
        if (client->start == client->end) {
            size = recv(client->fd, client->buffer, sizeof client->buffer, 0);
            client->start = 0;
            client->end = size > 0 ? size : 0;
        } else {
            size = send(client->fd, client->buffer + client->start, client->end - client->start, MSG_NOSIGNAL);
            client->start += size > 0 ? size : 0;
        }
        if (size < 0 && errno == EAGAIN)
            break;
        if (size <= 0) {
            close(client->fd);
            free(client);
            return;
        }
    }
    watch(EPOLL_CTL_MOD, client->fd, client->start < client->end ? EPOLLOUT : EPOLLIN, client);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event events[16];

    strncpy(address.sun_path, argv[argc - 1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int count = epoll_wait(epoll, events, 16, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                turn(events[i].data.ptr);
            else
                meet(listener);
        }
    }
}
