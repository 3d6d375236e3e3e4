/* An echo server: a process for each client. The parent closes at once; the child ends without closing. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    char buffer[4096];
    ssize_t size;

    signal(SIGCHLD, SIG_IGN);
    strncpy(address.sun_path, argv[argc - 1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(argv[1]), 1;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        if (fork() == 0) {
            while ((size = read(client, buffer, sizeof buffer)) > 0 && write(client, buffer, size) == size)
                ;
            exit(0);
        }
        close(client);
    }
}
