/* An echo server with libuv, which does what node.js does: uv PATH FOLDER */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

struct client {
    uv_pipe_t pipe;
    char name[32];
};

static const char *folder;
static int last = -1;

static void on_close(uv_handle_t *handle)
{
    struct client *client = (struct client *)handle;
    char path[4096], line[64];

    if (client->name[0]) {
        snprintf(path, sizeof path, "%s/%s", folder, client->name);
        snprintf(line, sizeof line, "%s has left\n", client->name);
        int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        for (int i = 0; i < 100; i++)
            if (write(file, line, strlen(line)) < 0)
                perror(path);
        /* Open until the next one, so that numbers change owners. */
        if (last >= 0)
            close(last);
        last = file;
    }
    free(client);
}

static void let_go(uv_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)stream))
        uv_close((uv_handle_t *)stream, on_close);
}

static void make_room(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    (void)handle;
    *buffer = uv_buf_init(malloc(size), size);
}

static void on_written(uv_write_t *write, int status)
{
    if (status < 0)
        let_go(write->handle);
    free(write->data);
    free(write);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct client *client = (struct client *)stream;

    if (size > 0 && !client->name[0])
        memcpy(client->name, buffer->base, size < 31 ? size : 31);
    if (size < 0 || (size == 5 && !memcmp(buffer->base, "leave", 5)))
        let_go(stream);
    if (size <= 0 || uv_is_closing((uv_handle_t *)stream)) {
        free(buffer->base);
        return;
    }
    uv_write_t *write = calloc(1, sizeof *write);
    uv_buf_t part = uv_buf_init(buffer->base, size);
    write->data = buffer->base;
    uv_write(write, stream, &part, 1, on_written);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct client *client = calloc(1, sizeof *client);

    if (status < 0 || !client)
        return;
    uv_pipe_init(listener->loop, &client->pipe, 0);
    if (uv_accept(listener, (uv_stream_t *)&client->pipe))
        let_go((uv_stream_t *)&client->pipe);
    else
        uv_read_start((uv_stream_t *)&client->pipe, make_room, on_read);
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    uv_pipe_t listener;

    if (argc != 3)
        return 2;
    folder = argv[2];
    uv_pipe_init(loop, &listener, 0);
    if (uv_pipe_bind(&listener, argv[1]) || uv_listen((uv_stream_t *)&listener, 128, on_connection))
        return perror(argv[1]), 1;
    return uv_run(loop, UV_RUN_DEFAULT);
}
