/* An echo server: a thread for each client, which reads what is waited for and writes it in two parts. With a second
 * argument it speaks first. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static int speaks_first;

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;
    char one[7], two[4000];
    struct iovec in[2] = { { one, sizeof one }, { two, sizeof two } };
    ssize_t size;

    if (speaks_first && (write(fd, "hello, ", 7) != 7 || send(fd, "who is it?", 10, 0) != 10))
        return NULL;
    while ((size = readv(fd, in, 2)) > 0) {
        size_t first = (size_t)size < sizeof one ? (size_t)size : sizeof one;
        struct iovec out[2] = { { one, first }, { two, size - first } };
        if (writev(fd, out, 2) != size)
            break;
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    speaks_first = argc > 2;
    signal(SIGPIPE, SIG_IGN);
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    for (;;) {
        pthread_t thread;
        int client = accept(listener, NULL, NULL);
        if (client >= 0 && !pthread_create(&thread, NULL, serve, (void *)(intptr_t)client))
            pthread_detach(thread);
    }
}
