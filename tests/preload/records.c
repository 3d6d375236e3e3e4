/* Reads each client to its end, in the way that the second argument names, and says what it read and how it ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[4096], looked[4096], message[15000] = "x";
static int epoll;

static const char *fate(ssize_t size)
{
    return size == 0 ? "end" : size < 0 ? strerrorname_np(errno) : "bytes";
}

/* MSG_PEEK must find what the next read does. */
static ssize_t peek_and_read(int fd)
{
    ssize_t found = recv(fd, looked, sizeof looked, MSG_PEEK);
    int error = errno;
    ssize_t size = recv(fd, buffer, sizeof buffer, 0);
    /* More may arrive in between. */
    ssize_t same = found < size ? found : size;
    if ((found > 0) != (size > 0) || (size < 0 && errno != error) || (same > 0 && memcmp(looked, buffer, same)))
        printf("MSG_PEEK found %zd, and a read %zd\n", found, size);
    return size;
}

static ssize_t once(int fd, const char *way)
{
    struct pollfd set = { .fd = fd, .events = POLLIN };
    struct iovec parts[] = { { buffer, 2 }, { buffer + 2, sizeof buffer - 2 } };
    struct mmsghdr message = { .msg_hdr = { .msg_iov = parts, .msg_iovlen = 2 } };
    struct epoll_event event;
    fd_set reads;
    ssize_t size;
    if (!strcmp(way, "read"))
        return read(fd, buffer, sizeof buffer);
    if (!strcmp(way, "byte"))
        return read(fd, buffer, 1);
    if (!strcmp(way, "peek"))
        return peek_and_read(fd);
    if (!strcmp(way, "all"))
        return recv(fd, buffer, sizeof buffer, MSG_WAITALL);
    if (!strcmp(way, "truncate"))
        return recv(fd, NULL, sizeof buffer, MSG_TRUNC);
    if (!strcmp(way, "readv"))
        return readv(fd, parts, 2);
    if (!strcmp(way, "recvmsg"))
        return recvmsg(fd, &message.msg_hdr, 0);
    if (!strcmp(way, "recvmmsg"))
        return recvmmsg(fd, &message, 1, 0, NULL) == 1 ? (ssize_t)message.msg_len : -1;
    if (!strcmp(way, "poll")) {
        /* A client is readable only if there is payload or the end. */
        if (poll(&set, 1, -1) != 1)
            perror("poll");
        return recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    }
    if (!strcmp(way, "select")) {
        FD_ZERO(&reads);
        FD_SET(fd, &reads);
        if (select(fd + 1, &reads, NULL, NULL, NULL) != 1)
            perror("select");
        return recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    }
    /* "nonblock" waits with poll(2), "edge" for edges of epoll(7). */
    while ((size = read(fd, buffer, sizeof buffer)) < 0 && errno == EAGAIN)
        if ((*way == 'e' ? epoll_wait(epoll, &event, 1, 20000) : poll(&set, 1, 20000)) != 1)
            return size;
    return size;
}

static void serve(int fd, const char *way)
{
    static char text[1 << 20];
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    ssize_t size, total = 0;
    if (!strcmp(way, "nonblock") || !strcmp(way, "edge"))
        fcntl(fd, F_SETFL, O_NONBLOCK);
    if (!strcmp(way, "edge"))
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    while ((size = once(fd, way)) > 0) {
        memcpy(text + total, buffer, size);
        total += size;
    }
    printf("%zd %.*s, %s, ", total, (int)(total < 40 ? total : 40), strcmp(way, "truncate") ? text : "", fate(size));
    printf("%s\n", fate(once(fd, way)));
    fflush(stdout);
}

/* The buffer is full at 64,000 bytes, where the kernel begins a new segment on a loopback interface: a record fits in
 * part. The first message has another size for each client, since the client's window ends anywhere in a record. */
static void speak(int fd)
{
    static int clients;
    int size = 32000, queued, total = write(fd, message, ++clients * 700);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    do
        total += write(fd, message, sizeof message);
    while (ioctl(fd, SIOCOUTQ, &queued) == 0 && queued < 65000 && total < 500000);
    close(fd);
    printf("spoken %d\n", total);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (argc < 3 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    epoll = epoll_create1(0);
    for (;;) {
        struct sockaddr_storage who;
        socklen_t size = sizeof who;
        int fd = accept(listener, (struct sockaddr *)&who, &size);
        if (who.ss_family == AF_INET && !strcmp(argv[2], "speak"))
            speak(fd);
        else {
            if (who.ss_family == AF_INET)
                serve(fd, argv[2]);
            close(fd);
        }
    }
}
