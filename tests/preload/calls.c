/* Serves one client after the other, each by the calls that the second argument names, and says what they return. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "say.h"

static void *write_much(void *argument)
{
    for (int i = 0; i < 1000; i++)
        if (write((int)(intptr_t)argument, "tick", 4) != 4)
            break;
    return NULL;
}

/* Waits until so many bytes can be read, headers among them. */
static void wait_for_bytes(int fd, int size)
{
    int waiting = 0;
    while (!ioctl(fd, FIONREAD, &waiting) && waiting < size)
        poll(NULL, 0, 1);
}

static void serve(int fd, const char *call)
{
    if (!strcmp(call, "peek")) {
        say("peek", recv(fd, buffer, 3, MSG_PEEK));
        say("peek again", recv(fd, buffer, 100, MSG_PEEK));
        say("read", read(fd, buffer, 100));
        say("read more", recv(fd, buffer, 100, MSG_DONTWAIT));
    } else if (!strcmp(call, "peek mistake")) {
        say("peek", recv(fd, buffer, 100, MSG_PEEK));
        say("read", read(fd, buffer, 100));
        say("peek error", recv(fd, buffer, 100, MSG_PEEK));
        say("error", read(fd, buffer, 100));
        say("end", read(fd, buffer, 100));
    } else if (!strcmp(call, "all")) {
        say("all", recv(fd, buffer, 10, MSG_WAITALL));
        say("truncated", recv(fd, NULL, 2, MSG_TRUNC));
        say("rest", read(fd, buffer, 100));
    } else if (!strcmp(call, "bytes")) {
        int size = 0;
        while (size < 12 && read(fd, buffer + size, 1) == 1)
            size++;
        say("bytes", size);
    } else if (!strcmp(call, "string")) {
        struct iovec parts[] = { { buffer, 2 }, { buffer + 2, 30 } };
        memset(buffer, 'x', 40);
        while (readv(fd, parts, 2) > 0)
            say("string", strlen(buffer));
    } else if (!strcmp(call, "dup")) {
        int other = dup(fd), third = fcntl(fd, F_DUPFD, 100);
        close(fd);
        close(third);
        say("write", write(other, "still here", 10));
        dup2(other, 50);
        close(other);
        say("write", write(50, "and here", 8));
        close(50);
    } else if (!strcmp(call, "shutdown")) {
        say("write", write(fd, "bye", 3));
        shutdown(fd, SHUT_WR);
        say("send", send(fd, "late", 4, MSG_NOSIGNAL));
        say("read", read(fd, buffer, 100));
        say("end", read(fd, buffer, 100));
        close(fd);
    } else if (!strcmp(call, "pipe")) {
        shutdown(fd, SHUT_WR);
        say("write", write(fd, "late", 4));
    } else if (!strcmp(call, "mistake")) {
        say("read", read(fd, buffer, 100));
        say("error", read(fd, buffer, 100));
        say("end", read(fd, buffer, 100));
    } else if (!strcmp(call, "poll")) {
        /* A ping and the header of a message have come. */
        struct pollfd set = { .fd = fd, .events = POLLIN };
        wait_for_bytes(fd, 13);
        say("nothing", poll(&set, 1, 50));
        shutdown(fd, SHUT_WR);
        say("something", poll(&set, 1, 60000));
        say("read", read(fd, buffer, 100));
        say("end", poll(&set, 1, 60000));
        say("read", read(fd, buffer, 100));
    } else if (!strcmp(call, "file")) {
        int file = memfd_create("file", 0);
        off_t offset = 2;
        say("write", write(file, "0123456789", 10));
        say("sendfile", sendfile(fd, file, &offset, 4));
        lseek(file, 7, SEEK_SET);
        say("sendfile", sendfile(fd, file, NULL, 100));
        printf("offset %ld, place %ld\n", (long)offset, (long)lseek(file, 0, SEEK_CUR));
        say("splice", splice(file, NULL, fd, NULL, 4, 0));
    } else if (!strcmp(call, "threads")) {
        pthread_t thread;
        pthread_create(&thread, NULL, write_much, (void *)(intptr_t)fd);
        say("read", read(fd, buffer, 100));
        pthread_join(thread, NULL);
    } else if (!strcmp(call, "exit")) {
        exit(0);
    } else if (!strcmp(call, "crash")) {
        raise(SIGKILL);
    } else if (!strcmp(call, "flood")) {
        /* No call may take long because of much that is nothing, and no edge may be lost by that. */
        struct epoll_event event = { .events = EPOLLIN | EPOLLET };
        int epoll = epoll_create1(0);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        wait_for_bytes(fd, 6007);
        ssize_t size = recv(fd, buffer, 1, 0);
        say("flood", size);
        while (size < 0 && epoll_wait(epoll, &event, 1, 10000) == 1)
            size = recv(fd, buffer, 1, 0);
        say("read", size);
    } else if (!strcmp(call, "select")) {
        /* More numbers than the set has room for, as many servers do it: behind it is nothing. */
        size_t page = sysconf(_SC_PAGESIZE);
        char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        fd_set *set = (fd_set *)(pages + page - sizeof *set);
        mprotect(pages + page, page, PROT_NONE);
        FD_SET(fd, set);
        say("select", select(1 << 20, set, NULL, NULL, NULL));
        say("read", read(fd, buffer, 100));
    } else if (!strcmp(call, "errno")) {
        struct pollfd set = { .fd = fd, .events = POLLIN };
        say("write", write(fd, "a message", 9));
        while (!(set.revents & POLLHUP))
            poll(&set, 1, 1);
        errno = ERANGE;
        close(fd);
        say("close", -1);
    } else if (!strcmp(call, "both")) {
        /* A parent and its child close at the same moment. */
        int *ready = mmap(NULL, sizeof *ready, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t child = fork();
        __atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(ready, __ATOMIC_SEQ_CST) < 2)
            continue;
        close(fd);
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
        munmap(ready, sizeof *ready);
    } else if (!strcmp(call, "child")) {
        /* The child reads to the end and closes; its parent closes after that, which has read nothing. */
        pid_t child = fork();
        if (child == 0) {
            while (read(fd, buffer, sizeof buffer) > 0)
                continue;
            close(fd);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    } else if (!strcmp(call, "parent")) {
        /* The other way round: the parent reads and closes, the child closes after that. */
        int closed[2];
        if (pipe(closed))
            return;
        if (fork() == 0) {
            close(closed[1]);
            (void)!read(closed[0], buffer, 1);
            exit(0);
        }
        while (read(fd, buffer, sizeof buffer) > 0)
            continue;
        close(fd);
        close(closed[0]);
        close(closed[1]);
    } else if (!strcmp(call, "types")) {
        say("text", send(fd, "text", 4, MSG_NOSIGNAL));
        say("other", send(fd, "\xff", 1, MSG_NOSIGNAL));
    } else if (!strcmp(call, "cut")) {
        /* A character in two writes; one whose other half never comes, while the server waits for its client. */
        say("write", write(fd, "\xe2\x82", 2));
        say("write", write(fd, "\xac gr\xc3", 5));
        say("read", read(fd, buffer, 100));
        say("write", write(fd, "end \xc3", 5));
        if (fork() == 0)
            _exit(0);
        wait(NULL);
    } else if (!strcmp(call, "spare")) {
        /* Nothing here fails, and so nothing may say why it has. */
        struct pollfd set = { .fd = fd, .events = POLLIN };
        struct epoll_event event = { .events = EPOLLIN };
        int epoll = epoll_create1(0);
        fd_set reads;
        ssize_t size;
        errno = ERANGE;
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        do {
            FD_ZERO(&reads);
            FD_SET(fd, &reads);
            epoll_wait(epoll, &event, 1, -1);
            say("epoll_wait", -1);
            poll(&set, 1, -1);
            say("poll", -1);
            select(fd + 1, &reads, NULL, NULL, NULL);
            say("select", -1);
            size = read(fd, buffer, 100);
            say("read", -1);
        } while (size > 0 && write(fd, buffer, size) == size);
        say("end", -1);
    } else if (!strcmp(call, "program")) {
        /* Another program starts while the client is there; it has a copy until it runs, and ends with this one. */
        int input[2], begun[2];
        if (pipe(input) || pipe2(begun, O_CLOEXEC))
            return;
        if (fork() == 0) {
            dup2(input[0], 0);
            close(input[1]);
            execlp("cat", "cat", NULL);
            _exit(1);
        }
        close(begun[1]);
        say("begun", read(begun[0], buffer, 1));
        say("system", system("true"));
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, argc > 3 ? 153 : 0);

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (argc < 3 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    for (;;) {
        struct sockaddr_storage who;
        socklen_t size = sizeof who;
        int fd = accept4(listener, (struct sockaddr *)&who, &size, SOCK_CLOEXEC);
        if (who.ss_family == AF_INET)
            serve(fd, argv[2]);
        close(fd);
    }
}
