/* A library with ouistiti's interface: the methods of the JSON-RPC 2.0 specification's examples, and some that do
 * harm. Its configuration is a file that it writes down in how it is used. */
#define _DEFAULT_SOURCE
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What ouistiti's header says. */
struct jsonrpc_method_entry_t {
    const char *name;
    int (*funcptr)(json_t *params, json_t **result, void *context);
    const char *params_spec;
};
json_t *jsonrpc_error_object(int code, const char *message, json_t *data);
json_t *jsonrpc_error_object_predefined(int code, json_t *data);
void *jsonrpc_init(struct jsonrpc_method_entry_t **table, char *config);
void jsonrpc_release(void *context);

struct connection {
    const char *log;
    int count;
};

static void note(const struct connection *connection, const char *word)
{
    FILE *file = connection->log ? fopen(connection->log, "a") : NULL;
    if (file) {
        fprintf(file, "%s %d\n", word, connection->count);
        fclose(file);
    }
}

static int subtract(json_t *params, json_t **result, void *context)
{
    json_t *one = json_is_array(params) ? json_array_get(params, 0) : json_object_get(params, "minuend");
    json_t *two = json_is_array(params) ? json_array_get(params, 1) : json_object_get(params, "subtrahend");
    (void)context;
    *result = json_integer(json_integer_value(one) - json_integer_value(two));
    return 0;
}

static int sum(json_t *params, json_t **result, void *context)
{
    json_int_t total = 0;
    size_t index;
    json_t *value;
    (void)context;
    json_array_foreach(params, index, value) total += json_integer_value(value);
    *result = json_integer(total);
    return 0;
}

static int get_data(json_t *params, json_t **result, void *context)
{
    (void)params, (void)context;
    *result = json_pack("[s,i]", "hello", 5);
    return 0;
}

static int nothing(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result, (void)context;
    return 0;
}

static int count(json_t *params, json_t **result, void *context)
{
    struct connection *connection = context;
    (void)params;
    *result = json_integer(++connection->count);
    note(connection, "count");
    return 0;
}

static int echo(json_t *params, json_t **result, void *context)
{
    (void)context;
    *result = json_incref(params);
    return 0;
}

static int repeat(json_t *params, json_t **result, void *context)
{
    json_int_t size = json_integer_value(json_array_get(params, 0));
    char *text = malloc(size + 1);
    (void)context;
    memset(text, 'x', size);
    text[size] = 0;
    *result = json_string(text);
    free(text);
    return 0;
}

static int refuse(json_t *params, json_t **result, void *context)
{
    (void)params, (void)context;
    *result = jsonrpc_error_object(-32001, "I will not", json_pack("{s:s}", "because", "\"so\""));
    return -1;
}

static int refuse_predefined(json_t *params, json_t **result, void *context)
{
    (void)params, (void)context;
    *result = jsonrpc_error_object_predefined(-32602, NULL);
    return -32602;
}

static int fail(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result, (void)context;
    return -1;
}

static int crash(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result, (void)context;
    raise(SIGSEGV);
    return 0;
}

static int write_nowhere(json_t *params, json_t **result, void *context)
{
    int *volatile nowhere = NULL;
    (void)params, (void)result, (void)context;
    *nowhere = 1;
    return 0;
}

static int leave(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result, (void)context;
    exit(3);
}

static int block(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result;
    note(context, "block");
    while (pause())
        continue;
    return 0;
}

static int linger(json_t *params, json_t **result, void *context)
{
    (void)params, (void)result;
    note(context, "linger");
    usleep(300000);
    return 0;
}

static int wait_for_another(json_t *params, json_t **result, void *context)
{
    struct connection *connection = context;
    char command[4200];
    (void)params, (void)result;
    snprintf(command, sizeof command, "echo $$ > '%s'; exec sleep 600", connection->log);
    return system(command);
}

static int leak(json_t *params, json_t **result, void *context)
{
    struct connection *connection = context;
    void *volatile lost = malloc(64 << 20);
    (void)params;
    *result = lost ? json_integer(++connection->count) : NULL;
    return lost ? 0 : -1;
}

static struct jsonrpc_method_entry_t methods[] = {
    {"subtract", subtract, "o"},
    {"sum", sum, NULL},
    {"get_data", get_data, ""},
    {"update", nothing, NULL},
    {"notify_hello", nothing, NULL},
    {"notify_sum", nothing, NULL},
    {"count", count, ""},
    {"echo", echo, "o"},
    {"two", echo, "[si!]"},
    {"first", echo, "[b*]"},
    {"inner", echo, "[{}[f]]"},
    {"keyed", echo, "{s:s}"},
    {"repeat", repeat, "[i]"},
    {"refuse", refuse, NULL},
    {"refuse_predefined", refuse_predefined, NULL},
    {"fail", fail, NULL},
    {"crash", crash, NULL},
    {"write_nowhere", write_nowhere, NULL},
    {"leave", leave, NULL},
    {"block", block, NULL},
    {"linger", linger, NULL},
    {"wait_for_another", wait_for_another, NULL},
    {"leak", leak, NULL},
    {NULL, NULL, NULL},
};

void *jsonrpc_init(struct jsonrpc_method_entry_t **table, char *config)
{
    struct connection *connection = calloc(1, sizeof *connection);
    connection->log = config;
    *table = methods;
    note(connection, "init");
    return connection;
}

void jsonrpc_release(void *context)
{
    note(context, "release");
    free(context);
}
