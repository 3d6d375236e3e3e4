/* Says of each record on standard input, which stands behind its length, what utils/hello/hello.h reads in it. */
#define HELLO_MAIN
#define main hello_main
#include "../../utils/hello/hello.h"
#undef main

int main(void)
{
    unsigned char head[4];
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t size = (size_t)head[2] << 8 | head[3];
        unsigned char *record = malloc(size ? size : 1);
        struct hello who;
        assert(record && fread(record, 1, size, stdin) == size);
        if (hello_parse(record, size, &who) == HELLO_OK)
            print_hello(&who);
        else
            puts("refused");
        free(record);
    }
    return 0;
}
