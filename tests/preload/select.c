/* An echo server: one process, one thread, select(2), blocking sockets. */
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, argc > 2 ? 153 : 0);
    fd_set all, ready;
    char buffer[65536];

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    FD_ZERO(&all);
    FD_SET(listener, &all);
    for (;;) {
        ready = all;
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0)
            return perror("select"), 1;
        for (int fd = 0; fd < FD_SETSIZE; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client >= 0)
                    FD_SET(client, &all);
                continue;
            }
            ssize_t size = read(fd, buffer, sizeof buffer);
            if (size <= 0 || write(fd, buffer, size) != size) {
                FD_CLR(fd, &all);
                close(fd);
            }
        }
    }
}
