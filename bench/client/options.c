#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unpack.h"

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "client: %s: %s\n", what, which);
    exit(2);
}

static uint64_t number(const char *name, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (!*text || *end)
        fail("not a whole number", name);
    return value;
}

static void read_names(struct options *options)
{
    FILE *file = fopen(options->names_file, "r");
    if (!file)
        fail("cannot read", options->names_file);
    options->names = calloc(options->channels, sizeof *options->names);
    char line[256];
    uint32_t count = 0;
    while (count < options->channels && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        options->names[count++] = strdup(line);
    }
    fclose(file);
    if (count < options->channels)
        fail("fewer names than --channels", options->names_file);
}

void options_read(struct options *options, int count, char **arguments)
{
    memset(options, 0, sizeof *options);
    options->host = "127.0.0.1";
    options->path = "/";
    options->names_file = options->hello = options->prefix = options->item = "";
    options->separator = options->suffix = options->ack = options->ask = options->reply = "";
    options->per_address = 20000;
    options->in_flight = 256;
    options->receive_buffer = 4096;

    struct {
        const char *name;
        const char **text;
        uint32_t *whole;
    } table[] = {
        {"--host", &options->host, NULL},
        {"--path", &options->path, NULL},
        {"--names", &options->names_file, NULL},
        {"--hello", &options->hello, NULL},
        {"--prefix", &options->prefix, NULL},
        {"--item", &options->item, NULL},
        {"--separator", &options->separator, NULL},
        {"--suffix", &options->suffix, NULL},
        {"--ack", &options->ack, NULL},
        {"--ask", &options->ask, NULL},
        {"--reply", &options->reply, NULL},
        {"--connections", NULL, &options->connections},
        {"--first-id", NULL, &options->first_id},
        {"--channels", NULL, &options->channels},
        {"--subscribed", NULL, &options->subscribed},
        {"--per-address", NULL, &options->per_address},
        {"--in-flight", NULL, &options->in_flight},
        {"--rate", NULL, &options->rate},
        {"--stall-permille", NULL, &options->stall_permille},
        {"--churn-per-second", NULL, &options->churn_per_second},
        {"--joins", NULL, &options->joins},
        {"--join-rate", NULL, &options->join_rate},
    };
    for (int i = 1; i < count; i += 2) {
        const char *name = arguments[i];
        if (i + 1 >= count)
            fail("no value", name);
        const char *value = arguments[i + 1];
        size_t row = 0, rows = sizeof table / sizeof *table;
        while (row < rows && strcmp(table[row].name, name))
            row++;
        if (row < rows && table[row].text)
            *table[row].text = value;
        else if (row < rows)
            *table[row].whole = (uint32_t)number(name, value);
        else if (!strcmp(name, "--port"))
            options->port = (int)number(name, value);
        else if (!strcmp(name, "--seed"))
            options->seed = number(name, value);
        else if (!strcmp(name, "--receive-buffer"))
            options->receive_buffer = (int)number(name, value);
        else if (!strcmp(name, "--binary"))
            options->binary = number(name, value) != 0;
        else if (!strcmp(name, "--expect-first"))
            options->expect_first = number(name, value) != 0;
        else if (!strcmp(name, "--deflate"))
            options->deflate = number(name, value) != 0;
        else if (!strcmp(name, "--numbered"))
            options->numbered = number(name, value) != 0;
        else
            fail("unknown option", name);
    }
    if (!options->port || !options->connections || !options->channels)
        fail("needed", "--port, --connections, --channels");
    if (options->subscribed < 1 || options->subscribed > options->channels)
        fail("must lie between 1 and --channels", "--subscribed");
    if (!options->per_address || !options->in_flight)
        fail("must be 1 or more", "--per-address, --in-flight");
    if (options->joins && !options->join_rate)
        fail("needed with --joins", "--join-rate");
    if (options->deflate && !unpack_available())
        fail("this client was built without zlib", "--deflate");
    read_names(options);
}

static void append(char **at, char *end, const char *text, size_t length)
{
    if (*at + length > end)
        fail("too long", "subscribe command");
    memcpy(*at, text, length);
    *at += length;
}

static void append_item(const struct options *options, uint32_t channel, char **at, char *end)
{
    for (const char *p = options->item; *p; p++) {
        if (p[0] == '%' && p[1] == 'c') {
            append(at, end, options->names[channel], strlen(options->names[channel]));
            p++;
        } else if (p[0] == '%' && p[1] == 'i') {
            char digits[12];
            append(at, end, digits, (size_t)snprintf(digits, sizeof digits, "%u", channel));
            p++;
        } else {
            append(at, end, p, 1);
        }
    }
}

size_t options_command(const struct options *options, const uint32_t *channels, uint32_t count, char *out, size_t size)
{
    char *at = out, *end = out + size;
    append(&at, end, options->prefix, strlen(options->prefix));
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            append(&at, end, options->separator, strlen(options->separator));
        append_item(options, channels[i], &at, end);
    }
    append(&at, end, options->suffix, strlen(options->suffix));
    return (size_t)(at - out);
}
