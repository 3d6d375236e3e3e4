/* Parser of the hello record, which uakari sends first to a backend with `hello`: the client and its request.
 *
 * Copy this file into your server. It is C99 with POSIX sockets and allocates no memory:
 *
 *     #include "hello.h"
 *     static unsigned char buffer[HELLO_SIZE_MAX];
 *     struct hello who;
 *     int client = accept(listener, NULL, NULL);
 *     int error = hello_read(client, buffer, sizeof buffer, &who);    // before anything else is read
 *     if (error) fprintf(stderr, "%s\n", hello_error(error));
 *     else printf("%s:%u asks for %s?%s\n", who.client_ip, who.client_port, who.path, who.query);
 *
 * The texts of `who` are in `buffer` and valid as long as it is. With the default head-size a record of uakari fits
 * into 20 KiB; for a larger one the result is HELLO_TOO_LONG.
 *
 * The record is PROXY protocol version 2 (proxy-protocol.txt of haproxy, section 2.2) with fields for what the
 * handshake said. Its bytes are in docs/backends.md of uakari.
 *
 * To try it: cc -x c -DHELLO_MAIN hello.h -o hello
 *     ./hello           for one client whose connection is fd 0, as inetd, socat or systemd (Accept=yes) start it:
 *                       prints the record to the client as a line, then echoes
 *     ./hello --test    tests itself
 *
 * SPDX-License-Identifier: MIT
 * Copyright (c) 2026 The uakari maintainers
 */
#ifndef UAKARI_HELLO_H
#define UAKARI_HELLO_H

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Size of the head, which contains the size of the rest. */
#define HELLO_HEAD_SIZE 16
/* The longest record. */
#define HELLO_SIZE_MAX (HELLO_HEAD_SIZE + 65535)
/* Fields of other types that are stored. */
#define HELLO_OTHERS_MAX 16

/* A field of other types. */
struct hello_field {
    unsigned char type;
    const unsigned char *value;
    size_t size;
};

/* The client and its request. Missing fields are "" or 0; no pointer is NULL. The texts are UTF-8. */
struct hello {
    /* The client and the address it connected to; "" for a UNIX socket. */
    char client_ip[INET6_ADDRSTRLEN];
    char local_ip[INET6_ADDRSTRLEN];
    unsigned client_port;
    unsigned local_port;
    /* The Host header, with its port. */
    const char *host;
    /* The connection in the gateway's log, such as "c12". */
    const char *id;
    /* "/" and the name, decoded: any characters but NUL. */
    const char *path;
    /* The query string, as it was sent. */
    const char *query;
    /* The page's origin; "" for a client that is not a web page. */
    const char *origin;
    /* The selected subprotocol. */
    const char *subprotocol;
    /* The user that the gateway has admitted, and its groups, separated by commas; "" without auth. */
    const char *user;
    const char *groups;
    /* The version of TLS, such as "TLSv1.3", and the cipher suite; "" for a client without TLS. */
    const char *tls_version;
    const char *tls_cipher;
    /* The host that the client named in the TLS handshake. */
    const char *sni;
    /* The application protocol that ALPN selected. */
    const char *alpn;
    /* Whether the client has presented a certificate that the gateway verified. If 0, do not rely on the next four. */
    int is_verified;
    /* The certificate's common name and subject (RFC 4514): any characters but NUL. Over 1,024 bytes
       they are left out. */
    const char *common_name;
    const char *subject;
    /* Its serial number, and SHA-256 of all of it: hexadecimal digits. */
    const char *serial;
    const char *fingerprint;
    /* Fields of other types, in order. */
    struct hello_field others[HELLO_OTHERS_MAX];
    size_t others_count;
};

/* Results of the functions. After any but HELLO_OK close the connection. */
enum hello_result {
    HELLO_OK,
    HELLO_FAILED,     /* recv(2) failed, see errno; EAGAIN: SO_RCVTIMEO has expired */
    HELLO_ENDED,      /* the connection ended within the record */
    HELLO_TOO_LONG,   /* the record does not fit into the buffer */
    HELLO_NO_RECORD,  /* not a PROXY protocol version 2 header */
    HELLO_VERSION,    /* unknown version, command, family or transport */
    HELLO_CUT,        /* a length does not match */
    HELLO_TWICE,      /* two fields of a type */
    HELLO_BAD_TEXT,   /* a text contains a NUL or is not UTF-8 */
    HELLO_TOO_MANY    /* more than HELLO_OTHERS_MAX fields of other types */
};

/* A result as a message. */
static inline const char *hello_error(int result)
{
    switch (result) {
    case HELLO_OK: return "the record is good";
    case HELLO_FAILED: return "the record cannot be received";
    case HELLO_ENDED: return "the connection ended within the record";
    case HELLO_TOO_LONG: return "the record does not fit into the buffer";
    case HELLO_NO_RECORD: return "this is no PROXY protocol 2: does the gateway have hello switched on?";
    case HELLO_VERSION: return "the record's version, command, family or transport is not known";
    case HELLO_CUT: return "the record is cut off";
    case HELLO_TWICE: return "a field of the record is there twice";
    case HELLO_BAD_TEXT: return "a text of the record has a NUL in it or is not UTF-8";
    case HELLO_TOO_MANY: return "the record has too many fields that are not known";
    default: return "this is no result of hello.h";
    }
}

/* Size of the whole record from its first HELLO_HEAD_SIZE bytes: for servers that do not block. */
static inline int hello_size(const void *head, size_t *size)
{
    const unsigned char *bytes = (const unsigned char *)head;
    if (memcmp(bytes, "\r\n\r\n\0\r\nQUIT\n", 12) != 0) return HELLO_NO_RECORD;
    if (bytes[12] >> 4 != 2) return HELLO_VERSION;
    *size = HELLO_HEAD_SIZE + ((size_t)bytes[14] << 8 | bytes[15]);
    return HELLO_OK;
}

/* Whether these bytes are UTF-8 (RFC 3629) without a NUL. */
static inline int hello_is_text(const unsigned char *bytes, size_t size)
{
    size_t at = 0;
    while (at < size) {
        unsigned char first = bytes[at++];
        unsigned char low = 0x80, high = 0xbf;
        int more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if (first == 0 || (first >= 0x80 && first < 0xc2) || first > 0xf4) return 0;
        /* No overlong forms, no surrogates, nothing beyond U+10FFFF. */
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
        for (; more > 0; more--) {
            if (at == size || bytes[at] < low || bytes[at] > high) return 0;
            at++;
            low = 0x80;
            high = 0xbf;
        }
    }
    return 1;
}

/* The field of TLS (PP2_TYPE_SSL): a byte of flags, 4 bytes that are 0 for a valid certificate, fields of its own. */
#define HELLO_TLS 0x20
#define HELLO_TLS_HEAD_SIZE 5
/* The flags of a client that has presented a certificate, in this connection or in this session. */
#define HELLO_HAS_CERTIFICATE 0x06

/* Stores one field. A text is moved over the type and size before it, which makes room for its NUL. */
static inline int hello_note(struct hello *hello, unsigned char *field, size_t size, int is_of_tls, unsigned *seen)
{
    const struct { int is_of_tls; unsigned char type; const char **text; } names[] = {
        { 0, 0x02, &hello->host },
        { 0, 0x05, &hello->id },
        { 0, 0xe0, &hello->path },
        { 0, 0xe1, &hello->query },
        { 0, 0xe2, &hello->origin },
        { 0, 0xe3, &hello->subprotocol },
        { 0, 0xe4, &hello->user },
        { 0, 0x01, &hello->alpn },
        { 0, 0xe5, &hello->sni },
        { 0, 0xe6, &hello->subject },
        { 0, 0xe7, &hello->serial },
        { 0, 0xe8, &hello->fingerprint },
        { 0, 0xe9, &hello->groups },
        { 1, 0x21, &hello->tls_version },
        { 1, 0x22, &hello->common_name },
        { 1, 0x23, &hello->tls_cipher },
    };
    unsigned char type = field[0];
    size_t index;
    for (index = 0; index < sizeof names / sizeof *names; index++) {
        if (names[index].type != type || names[index].is_of_tls != is_of_tls) continue;
        if (*seen & 1u << index) return HELLO_TWICE;
        *seen |= 1u << index;
        if (!hello_is_text(field + 3, size)) return HELLO_BAD_TEXT;
        memmove(field, field + 3, size);
        field[size] = 0;
        *names[index].text = (const char *)field;
        return HELLO_OK;
    }
    if (is_of_tls) return HELLO_OK;
    if (hello->others_count == HELLO_OTHERS_MAX) return HELLO_TOO_MANY;
    hello->others[hello->others_count].type = type;
    hello->others[hello->others_count].value = field + 3;
    hello->others[hello->others_count].size = size;
    hello->others_count++;
    return HELLO_OK;
}

/* Stores the fields in these bytes, which are those of the field of TLS or of the record. */
static inline int hello_fields(struct hello *hello, unsigned char *bytes, size_t size, int is_of_tls, unsigned *seen)
{
    size_t at = 0;
    while (at < size) {
        unsigned char *field = bytes + at, *value;
        size_t value_size;
        int result;
        if (size - at < 3) return HELLO_CUT;
        value = field + 3;
        value_size = (size_t)field[1] << 8 | field[2];
        if (size - at - 3 < value_size) return HELLO_CUT;
        at += 3 + value_size;
        if (field[0] == HELLO_TLS && !is_of_tls) {
            if (*seen & 1u << 31) return HELLO_TWICE;
            *seen |= 1u << 31;
            if (value_size < HELLO_TLS_HEAD_SIZE) return HELLO_CUT;
            hello->is_verified = value[0] & HELLO_HAS_CERTIFICATE && !(value[1] | value[2] | value[3] | value[4]);
            value_size -= HELLO_TLS_HEAD_SIZE;
            result = hello_fields(hello, value + HELLO_TLS_HEAD_SIZE, value_size, 1, seen);
        } else {
            result = hello_note(hello, field, value_size, is_of_tls, seen);
        }
        if (result != HELLO_OK) return result;
    }
    return HELLO_OK;
}

/* Parses a whole record, such as a packet, and changes its bytes: the texts get their NULs there. */
static inline int hello_parse(void *record, size_t record_size, struct hello *hello)
{
    static const unsigned char addresses_size[] = { 0, 12, 36, 216 };
    unsigned char *bytes = (unsigned char *)record;
    size_t size, at, half;
    unsigned family, seen = 0;
    int result;
    memset(hello, 0, sizeof *hello);
    hello->host = hello->id = hello->path = hello->query = hello->origin = hello->subprotocol = "";
    hello->user = hello->groups = "";
    hello->tls_version = hello->tls_cipher = hello->sni = hello->alpn = "";
    hello->common_name = hello->subject = hello->serial = hello->fingerprint = "";
    if (record_size < HELLO_HEAD_SIZE) return HELLO_CUT;
    result = hello_size(bytes, &size);
    if (result != HELLO_OK) return result;
    if (record_size != size) return HELLO_CUT;
    /* LOCAL: the connection is the sender's own, and the rest is ignored. */
    if (bytes[12] == 0x20) return HELLO_OK;
    family = bytes[13] >> 4;
    if (bytes[12] != 0x21 || family >= sizeof addresses_size || (bytes[13] & 15) > 2) return HELLO_VERSION;
    at = HELLO_HEAD_SIZE + addresses_size[family];
    if (at > size) return HELLO_CUT;
    if (family == 1 || family == 2) {
        const unsigned char *client = bytes + HELLO_HEAD_SIZE;
        half = family == 1 ? 4 : 16;
        /* The buffers are large enough, so that neither can fail. */
        inet_ntop(family == 1 ? AF_INET : AF_INET6, client, hello->client_ip, sizeof hello->client_ip);
        inet_ntop(family == 1 ? AF_INET : AF_INET6, client + half, hello->local_ip, sizeof hello->local_ip);
        hello->client_port = (unsigned)client[2 * half] << 8 | client[2 * half + 1];
        hello->local_port = (unsigned)client[2 * half + 2] << 8 | client[2 * half + 3];
    }
    return hello_fields(hello, bytes + at, size - at, 0, &seen);
}

static inline int hello_receive(int fd, unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t received = recv(fd, bytes, size, 0);
        if (received == 0) return HELLO_ENDED;
        if (received < 0 && errno != EINTR) return HELLO_FAILED;
        if (received > 0) {
            bytes += received;
            size -= (size_t)received;
        }
    }
    return HELLO_OK;
}

/* Reads the record from a blocking socket, of packets or not, and not a byte more. */
static inline int hello_read(int fd, void *buffer, size_t buffer_size, struct hello *hello)
{
    size_t size = 0;
    int result, type = 0;
    socklen_t type_size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0) return HELLO_FAILED;
    if (type == SOCK_SEQPACKET) {
        ssize_t received;
        /* With MSG_TRUNC the result is the size of the packet, also if it does not fit. */
        do received = recv(fd, buffer, buffer_size, MSG_TRUNC);
        while (received < 0 && errno == EINTR);
        if (received < 0) return HELLO_FAILED;
        if (received == 0) return HELLO_ENDED;
        if ((size_t)received > buffer_size) return HELLO_TOO_LONG;
        return hello_parse(buffer, (size_t)received, hello);
    }
    if (buffer_size < HELLO_HEAD_SIZE) return HELLO_TOO_LONG;
    result = hello_receive(fd, (unsigned char *)buffer, HELLO_HEAD_SIZE);
    if (result == HELLO_OK) result = hello_size(buffer, &size);
    if (result == HELLO_OK && size > buffer_size) result = HELLO_TOO_LONG;
    if (result == HELLO_OK)
        result = hello_receive(fd, (unsigned char *)buffer + HELLO_HEAD_SIZE, size - HELLO_HEAD_SIZE);
    return result == HELLO_OK ? hello_parse(buffer, size, hello) : result;
}

#ifdef HELLO_MAIN

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Bytes other than printable ASCII, spaces and percent signs are percent-encoded. */
static void print_plain(const char *name, const void *value, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)value;
    size_t at;
    printf(" %s=", name);
    for (at = 0; at < size; at++)
        printf(bytes[at] > 0x20 && bytes[at] < 0x7f && bytes[at] != '%' ? "%c" : "%%%02x", bytes[at]);
}

/* A text that only clients with TLS have. */
static void print_present(const char *name, const char *text)
{
    if (*text) print_plain(name, text, strlen(text));
}

static void print_address(const char *name, const char *ip, unsigned port)
{
    printf(strchr(ip, ':') ? "%s=[%s]:%u" : *ip ? "%s=%s:%u" : "%s=", name, ip, port);
}

static void print_hello(const struct hello *who)
{
    size_t index;
    print_address("client", who->client_ip, who->client_port);
    print_address(" local", who->local_ip, who->local_port);
    print_plain("host", who->host, strlen(who->host));
    print_plain("id", who->id, strlen(who->id));
    print_plain("path", who->path, strlen(who->path));
    print_plain("query", who->query, strlen(who->query));
    print_plain("origin", who->origin, strlen(who->origin));
    print_plain("subprotocol", who->subprotocol, strlen(who->subprotocol));
    print_present("user", who->user);
    print_present("groups", who->groups);
    print_present("tls_version", who->tls_version);
    print_present("tls_cipher", who->tls_cipher);
    print_present("sni", who->sni);
    print_present("alpn", who->alpn);
    print_present("common_name", who->common_name);
    print_present("subject", who->subject);
    print_present("serial", who->serial);
    print_present("fingerprint", who->fingerprint);
    if (who->is_verified) fputs(" is_verified", stdout);
    for (index = 0; index < who->others_count; index++) {
        char name[5];
        snprintf(name, sizeof name, "0x%02x", who->others[index].type);
        print_plain(name, who->others[index].value, who->others[index].size);
    }
    puts("");
}

/* hello_parse on a copy of the exact size, so that a sanitizer detects any access beyond it. */
static int parse_copy(const unsigned char *record, size_t size)
{
    struct hello who;
    unsigned char *copy = (unsigned char *)malloc(size ? size : 1);
    int result;
    assert(copy);
    memcpy(copy, record, size);
    result = hello_parse(copy, size, &who);
    assert(result != HELLO_OK || strlen(who.path) + strlen(who.query) + strlen(who.common_name) <= size);
    free(copy);
    return result;
}

static int test(void)
{
    static const char bytes[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x54\1\2\3\4\x7f\0\0\1\x30\x39\0\x50"
        "\x02\0\x04h:80\x05\0\x03" "c12\xe0\0\x05/Gr\xc3\xbc\xe1\0\x03q=1\xee\0\x04" "anna"
        /* An unknown field of TLS is skipped. */
        "\x20\0\x1a\x07\0\0\0\0\x21\0\x03TLS\x22\0\x03" "ann\x24\0\0\x23\0\x03" "AES"
        "\xe6\0\x06" "CN=ann";
    unsigned char record[sizeof bytes - 1];
    static const size_t ends[] = { 28, 35, 41, 49, 55, 62, 91, 100 };
    struct hello who;
    unsigned char buffer[200];
    int pair[2];
    size_t size, bit, index;
    for (index = 0; index < 2; index++) {
        assert(socketpair(AF_UNIX, index ? SOCK_SEQPACKET : SOCK_STREAM, 0, pair) == 0);
        assert(send(pair[0], bytes, sizeof record, 0) == (ssize_t)sizeof record && send(pair[0], "rest", 4, 0) == 4);
        assert(hello_read(pair[1], buffer, sizeof buffer, &who) == HELLO_OK);
        assert(!strcmp(who.client_ip, "1.2.3.4") && who.client_port == 12345);
        assert(!strcmp(who.local_ip, "127.0.0.1") && who.local_port == 80);
        assert(!strcmp(who.host, "h:80") && !strcmp(who.id, "c12") && !strcmp(who.path, "/Gr\xc3\xbc"));
        assert(!strcmp(who.query, "q=1") && !*who.origin && !*who.subprotocol && who.others_count == 1);
        assert(who.others[0].type == 0xee && who.others[0].size == 4 && !memcmp(who.others[0].value, "anna", 4));
        assert(!strcmp(who.tls_version, "TLS") && !strcmp(who.tls_cipher, "AES") && !*who.sni && !*who.alpn);
        assert(who.is_verified && !strcmp(who.common_name, "ann") && !strcmp(who.subject, "CN=ann"));
        assert(!*who.serial && !*who.fingerprint);
        assert(recv(pair[1], buffer, sizeof buffer, 0) == 4 && !memcmp(buffer, "rest", 4));
        close(pair[0]);
        close(pair[1]);
    }
    for (size = 0; size <= sizeof record; size++) {
        int is_end = 0;
        memcpy(record, bytes, sizeof record);
        assert(size == sizeof record || parse_copy(record, size) != HELLO_OK);
        if (size < HELLO_HEAD_SIZE) continue;
        record[15] = (unsigned char)(size - HELLO_HEAD_SIZE);
        for (index = 0; index < sizeof ends / sizeof *ends; index++) is_end |= ends[index] == size;
        assert((parse_copy(record, size) == HELLO_OK) == is_end);
    }
    for (bit = 0; bit < 8 * sizeof record; bit++) {
        memcpy(record, bytes, sizeof record);
        record[bit / 8] ^= (unsigned char)(1 << bit % 8);
        /* It may be valid except in the signature; no byte beyond it may be accessed. */
        assert(parse_copy(record, sizeof record) != HELLO_OK || bit >= 96);
    }
    puts("hello.h: ok");
    return 0;
}

int main(int count, char **arguments)
{
    static unsigned char buffer[HELLO_SIZE_MAX];
    struct hello who;
    ssize_t size;
    int error;
    if (count > 1) {
        if (!strcmp(arguments[1], "--test")) return test();
        fprintf(stderr, "usage: %s [--test]\n", arguments[0]);
        return 1;
    }
    error = hello_read(0, buffer, sizeof buffer, &who);
    if (error != HELLO_OK) {
        fprintf(stderr, "hello.h: %s\n", hello_error(error));
        return 1;
    }
    print_hello(&who);
    fflush(stdout);
    /* EINTR: with SO_RCVTIMEO, SIGCONT suffices (signal(7)). */
    while ((size = recv(0, buffer, sizeof buffer, 0)) > 0 || (size < 0 && errno == EINTR))
        if (size > 0 && send(0, buffer, (size_t)size, MSG_NOSIGNAL) != size) return 1;
    return 0;
}

#endif
#endif
