/* An echo server in direct mode that speaks RFC 6455 itself, with read(2) and write(2) alone: it knows neither
 * libwebsocket.so nor TLS. A process for each client. usage: plain PATH */
#include <endian.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONTINUATION = 0, TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum { PROTOCOL = 1002, NO_CODE = 1005, NOT_UTF8 = 1007, TOO_BIG = 1009 };

#define MESSAGE_SIZE_MAX (1 << 20)

/* Text so far: how many bytes are missing in the last character, and the bounds of the next one (RFC 3629, 4). */
struct utf8 {
    unsigned left;
    unsigned char low, high;
};

struct frame {
    int is_last, opcode;
    uint64_t size;
    unsigned char mask[4];
};

static int client;

/* Accepts a connection, and receives the client's socket from it. -1: there is none. */
static int receive_client(int listener)
{
    char address[128], rights[CMSG_SPACE(sizeof(int))];
    struct iovec bytes = { address, sizeof address };
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = rights, .msg_controllen = sizeof rights
    };
    struct cmsghdr *header;
    int fd = -1, connection = accept(listener, NULL, NULL);

    if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) > 0 && (header = CMSG_FIRSTHDR(&message)))
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    close(connection);
    return fd;
}

/* 0: the client has ended. Over kernel TLS its close_notify is an EIO. */
static int read_all(void *buffer, size_t size)
{
    ssize_t got;

    for (; size; size -= got, buffer = (char *)buffer + got)
        if ((got = read(client, buffer, size)) <= 0)
            return 0;
    return 1;
}

static int write_all(const void *buffer, size_t size)
{
    ssize_t put;

    for (; size; size -= put, buffer = (const char *)buffer + put)
        if ((put = write(client, buffer, size)) < 0)
            return 0;
    return 1;
}

static int send_frame(int opcode, const void *payload, size_t size)
{
    unsigned char header[10] = { 0x80 | opcode, size < 126 ? size : size <= UINT16_MAX ? 126 : 127 };
    uint16_t two = htobe16(size);
    uint64_t eight = htobe64(size);

    if (header[1] == 126)
        memcpy(header + 2, &two, sizeof two);
    else if (header[1] == 127)
        memcpy(header + 2, &eight, sizeof eight);
    return write_all(header, header[1] == 126 ? 4 : header[1] == 127 ? 10 : 2) && write_all(payload, size);
}

/* Sends a close frame, and waits until the client ends. */
static void end_with(int code)
{
    struct timeval wait = { .tv_sec = 3 };
    uint16_t two = htobe16(code);
    char rest[4096];

    send_frame(CLOSE, &two, code == NO_CODE ? 0 : sizeof two);
    shutdown(client, SHUT_WR);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    while (read(client, rest, sizeof rest) > 0)
        ;
}

static int is_utf8(struct utf8 *text, const unsigned char *bytes, size_t size)
{
    for (; size--; bytes++) {
        if (text->left) {
            if (*bytes < text->low || *bytes > text->high)
                return 0;
            text->left--;
            text->low = 0x80;
            text->high = 0xbf;
        } else if (*bytes >= 0x80) {
            if (*bytes < 0xc2 || *bytes > 0xf4)
                return 0;
            text->left = *bytes < 0xe0 ? 1 : *bytes < 0xf0 ? 2 : 3;
            text->low = *bytes == 0xe0 ? 0xa0 : *bytes == 0xf0 ? 0x90 : 0x80;
            text->high = *bytes == 0xed ? 0x9f : *bytes == 0xf4 ? 0x8f : 0xbf;
        }
    }
    return 1;
}

/* 0, or the code to close with. */
static int read_header(struct frame *frame)
{
    unsigned char bytes[2];
    uint16_t two;
    uint64_t eight;

    if (!read_all(bytes, sizeof bytes))
        return -1;
    frame->is_last = bytes[0] & 0x80;
    frame->opcode = bytes[0] & 0x0f;
    frame->size = bytes[1] & 0x7f;
    if (bytes[0] & 0x70 || !(bytes[1] & 0x80) || (frame->opcode > 2 && frame->opcode < 8) || frame->opcode > PONG)
        return PROTOCOL;
    if (frame->opcode >= CLOSE && (!frame->is_last || frame->size > 125))
        return PROTOCOL;
    if (frame->size == 126) {
        if (!read_all(&two, sizeof two))
            return -1;
        frame->size = be16toh(two);
    } else if (frame->size == 127) {
        if (!read_all(&eight, sizeof eight))
            return -1;
        frame->size = be64toh(eight);
    }
    return read_all(frame->mask, sizeof frame->mask) ? 0 : -1;
}

/* Reads the payload as it arrives; invalid text ends it early. 0, or the code to close with. */
static int read_payload(const struct frame *frame, unsigned char *payload, struct utf8 *text)
{
    uint64_t at = 0;
    ssize_t size;

    while (at < frame->size) {
        if ((size = read(client, payload + at, frame->size - at)) <= 0)
            return -1;
        for (ssize_t index = 0; index < size; index++)
            payload[at + index] ^= frame->mask[(at + index) % 4];
        if (text && !is_utf8(text, payload + at, size))
            return NOT_UTF8;
        at += size;
    }
    return 0;
}

/* The code that answers a close frame (RFC 6455, 7.4). */
static int answer(const unsigned char *payload, size_t size)
{
    struct utf8 text = { 0 };
    int code = size < 2 ? NO_CODE : payload[0] << 8 | payload[1];

    if (!size)
        return NO_CODE;
    if (size == 1 || code < 1000 || (code >= 1004 && code <= 1006) || (code > 1014 && code < 3000) || code > 4999)
        return PROTOCOL;
    return is_utf8(&text, payload + 2, size - 2) && !text.left ? code : NOT_UTF8;
}

/* Echoes until the end. Returns the code to close with, or -1 if the client is gone. */
static int echo(void)
{
    static unsigned char message[MESSAGE_SIZE_MAX], control[125];
    struct utf8 text = { 0 };
    struct frame frame;
    uint64_t size = 0;
    int code, opcode = CONTINUATION; /* of the message; CONTINUATION: none has begun */

    for (;;) {
        if ((code = read_header(&frame)) != 0)
            return code;
        if (frame.opcode >= CLOSE) {
            if ((code = read_payload(&frame, control, NULL)) != 0)
                return code;
            if (frame.opcode == CLOSE)
                return answer(control, frame.size);
            if (frame.opcode == PING && !send_frame(PONG, control, frame.size))
                return -1;
            continue;
        }
        if ((frame.opcode == CONTINUATION) != (opcode != CONTINUATION))
            return PROTOCOL;
        if (frame.size > MESSAGE_SIZE_MAX - size)
            return TOO_BIG;
        if (frame.opcode != CONTINUATION)
            opcode = frame.opcode;
        if ((code = read_payload(&frame, message + size, opcode == TEXT ? &text : NULL)) != 0)
            return code;
        size += frame.size;
        if (!frame.is_last)
            continue;
        if (text.left)
            return NOT_UTF8;
        if (!send_frame(opcode, message, size))
            return -1;
        opcode = CONTINUATION;
        size = 0;
    }
}

int main(int count, char **arguments)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int code, listener = socket(AF_UNIX, SOCK_STREAM, 0);

    if (count != 2 || strlen(arguments[1]) >= sizeof address.sun_path)
        return fprintf(stderr, "usage: plain PATH\n"), 2;
    strcpy(address.sun_path, arguments[1]);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return perror(arguments[1]), 1;
    for (;;) {
        client = receive_client(listener);
        if (client >= 0 && fork() == 0) {
            close(listener);
            if ((code = echo()) > 0)
                end_with(code);
            return 0;
        }
        close(client);
    }
}
