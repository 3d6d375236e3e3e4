/* Says what a call returned: the first bytes of the buffer that it filled, or the name of its error. */
static char buffer[65536];

static void say(const char *what, ssize_t size)
{
    if (size < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %zd %.*s\n", what, size, (int)(size < 40 ? size : 40), buffer);
    fflush(stdout);
}
