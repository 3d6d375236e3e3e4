/* Serves one client after the other, with descriptors that are closed past close(3), as the second argument names it,
 * and says what the calls return. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "say.h"

/* 32-bit ARM has only the call that counts the offset in pages. */
#ifndef SYS_mmap
#define SYS_mmap SYS_mmap2
#endif
/* 32-bit architectures have both. */
#ifndef SYS_fcntl64
#define SYS_fcntl64 SYS_fcntl
#endif

/* As io_uring closes, or an instruction of the program's own: libc's function, of which no library hears. */
static void close_unseen(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(dlopen("libc.so.6", RTLD_LAZY), "close");
    real(fd);
}

/* A file with this number, which has just become free. */
static int open_file(int fd)
{
    int file = memfd_create("file", MFD_CLOEXEC);
    printf("same number: %d\n", file == fd);
    fflush(stdout);
    return file;
}

static void say_all_of(int file)
{
    memset(buffer, 0, sizeof buffer);
    lseek(file, 0, SEEK_SET);
    say("in the file", read(file, buffer, 100));
}

/* Sends a descriptor from one socket of a pair to the other, and returns the lowest free number, which it has got. */
static int pass(int fd, int pair[2])
{
    union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof fd)]; } ancillary = { 0 };
    struct iovec part = { buffer, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary,
                              .msg_controllen = sizeof ancillary };

    ancillary.head = (struct cmsghdr) { CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS };
    memcpy(CMSG_DATA(&ancillary.head), &fd, sizeof fd);
    if (sendmsg(pair[0], &message, 0) != 1 || recvmsg(pair[1], &message, 0) != 1)
        return -1;
    memcpy(&fd, CMSG_DATA(&ancillary.head), sizeof fd);
    return fd;
}

static void say_address(const char *call, const struct sockaddr_storage *who, socklen_t size)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)who;
    printf("%s: family %d size %u", call, who->ss_family, size);
    if (who->ss_family == AF_INET)
        printf(" %s:%d", inet_ntoa(in->sin_addr), ntohs(in->sin_port));
    printf("\n");
    fflush(stdout);
}

static void serve(int fd, const char *call)
{
    static int clients;

    clients++;
    if (!strcmp(call, "number")) {
        say("write", write(fd, "bye", 3));
        say("close", syscall(SYS_close, fd));
        say("again", syscall(SYS_close, fd));
    } else if (!strcmp(call, "copies")) {
        int other = syscall(SYS_dup, fd);
        say("dup3", syscall(SYS_dup3, other, 60, 0) == 60);
        say("fcntl", syscall(SYS_fcntl, fd, F_DUPFD, 70) == 70);
        syscall(SYS_close, fd);
        syscall(SYS_close, other);
        say("write", write(60, "still here", 10));
        say("dup3", syscall(SYS_dup3, 70, 60, 0) == 60);
        syscall(SYS_close, 70);
        /* Of the client there is only the copy that fcntl made: the library must know it, and then this one. */
        say("fcntl64", syscall(SYS_fcntl64, 60, F_DUPFD_CLOEXEC, 80) == 80);
        say("dup3", syscall(SYS_dup3, 80, 60, 0) == 60);
        syscall(SYS_close, 80);
        say("shutdown", syscall(SYS_shutdown, 60, SHUT_WR));
        say("read", read(60, buffer, 100));
        say("close_range", syscall(SYS_close_range, 60, 60, 0));
    } else if (!strcmp(call, "arguments")) {
        /* Six arguments, and the last one counts. */
        char *page = (char *)syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
        say("mmap", page != MAP_FAILED && page[4095] == 0);
        say("tgkill", syscall(SYS_tgkill, getpid(), gettid(), 0));
        /* Unassigned. From 0xf0000 on ARM sends SIGILL. */
        say("nothing", syscall(0xefffL));
        close(fd);
    } else if (!strcmp(call, "file")) {
        /* The library knows that nothing may be written any more, and nothing is to be read. */
        shutdown(fd, SHUT_WR);
        while (read(fd, buffer, 100) > 0)
            continue;
        close_unseen(fd);
        int file = open_file(fd);
        say("read", read(file, buffer, 100));
        say("write", write(file, "01234567", 8));
        say("send", send(file, "8", 1, MSG_NOSIGNAL));
        int other = memfd_create("other", 0);
        say("write", write(other, "89", 2));
        off_t start = 0;
        say("sendfile", sendfile(file, other, &start, 2));
        say_all_of(file);
        close(file);
    } else if (!strcmp(call, "copy")) {
        /* A copy of what has a client's number is none of the client. */
        shutdown(fd, SHUT_WR);
        close_unseen(fd);
        int file = open_file(fd), other = dup(file);
        close_unseen(file);
        say("write", write(other, "0123456789", 10));
        say_all_of(other);
        close(other);
    } else if (!strcmp(call, "passed")) {
        int pair[2], raw[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || socketpair(AF_UNIX, SOCK_STREAM, 0, raw))
            return;
        dup2(fd, 100);
        close_unseen(fd);
        int passed = pass(raw[0], pair);
        printf("same number: %d\n", passed == fd);
        say("write", write(passed, "raw", 3));
        say("read", read(raw[1], buffer, 100));
        say("write", write(100, "served", 6));
        close(100);
    } else if (!strcmp(call, "next") && clients == 1) {
        /* The library's own descriptor for the next client gets the second number. */
        int other = dup(fd);
        printf("other: %d\n", other == fd + 1);
        fflush(stdout);
        close_unseen(other);
        close_unseen(fd);
    } else if (!strcmp(call, "next")) {
        ssize_t size;
        while ((size = read(fd, buffer, sizeof buffer)) > 0)
            say("write", write(fd, buffer, size));
        close(fd);
    } else if (!strcmp(call, "late")) {
        /* What comes into the place of a connection comes not into that of a file. */
        int other = dup(fd);
        close_unseen(other);
        int file = open_file(other);
        printf("client %d\n", clients);
        fflush(stdout);
        say("read", read(fd, buffer, 100));
        say("write", write(file, "01234567", 8));
        say_all_of(file);
        close(file);
        close(fd);
    } else if (!strcmp(call, "address") || !strcmp(call, "peer")) {
        struct sockaddr_storage who;
        socklen_t size = sizeof who;
        if (getpeername(fd, (struct sockaddr *)&who, &size))
            perror("getpeername");
        say_address("getpeername", &who, size);
        size = strcmp(call, "address") ? sizeof who : sizeof(struct sockaddr_un);
        if (getsockname(fd, (struct sockaddr *)&who, &size))
            perror("getsockname");
        printf("getsockname: family %d\n", who.ss_family);
        say("read", read(fd, buffer, 100));
        close(fd);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (argc < 3 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    for (;;) {
        struct sockaddr_storage who;
        socklen_t size = strcmp(argv[2], "address") ? sizeof who : sizeof address;
        int fd = accept4(listener, (struct sockaddr *)&who, &size, SOCK_CLOEXEC);
        struct sockaddr_in peer;
        socklen_t peer_size = sizeof peer;
        if (getsockname(fd, (struct sockaddr *)&peer, &peer_size))
            return perror("getsockname"), 1;
        say_address("accept", &who, size);
        /* Whoever connects without the gateway only wants to know whether somebody listens. */
        if (who.ss_family == AF_INET || peer.sin_family == AF_INET || !strcmp(argv[2], "late"))
            serve(fd, argv[2]);
        else
            close(fd);
    }
}
