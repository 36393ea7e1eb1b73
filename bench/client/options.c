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

static uint32_t number(const char *name, const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (!*text || *end || value > UINT32_MAX)
        fail("not a whole number", name);
    return (uint32_t)value;
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
    struct {
        const char *name;
        const char **text;
        uint32_t *whole;
        bool *flag;
    } table[] = {
        {"--path", &options->path},
        {"--names", &options->names_file},
        {"--hello", &options->hello},
        {"--prefix", &options->prefix},
        {"--item", &options->item},
        {"--separator", &options->separator},
        {"--suffix", &options->suffix},
        {"--ack", &options->ack},
        {"--ask", &options->ask},
        {"--reply", &options->reply},
        {"--connections", .whole = &options->connections},
        {"--first-id", .whole = &options->first_id},
        {"--channels", .whole = &options->channels},
        {"--subscribed", .whole = &options->subscribed},
        {"--in-flight", .whole = &options->in_flight},
        {"--rate", .whole = &options->rate},
        {"--stall-permille", .whole = &options->stall_permille},
        {"--churn-per-second", .whole = &options->churn_per_second},
        {"--joins", .whole = &options->joins},
        {"--join-rate", .whole = &options->join_rate},
        {"--port", .whole = &options->port},
        {"--seed", .whole = &options->seed},
        {"--receive-buffer", .whole = &options->receive_buffer},
        {"--binary", .flag = &options->binary},
        {"--expect-first", .flag = &options->expect_first},
        {"--deflate", .flag = &options->deflate},
        {"--numbered", .flag = &options->numbered},
    };
    for (int i = 1; i < count; i += 2) {
        const char *name = arguments[i];
        if (i + 1 >= count)
            fail("no value", name);
        const char *value = arguments[i + 1];
        size_t row = 0, rows = sizeof table / sizeof *table;
        while (row < rows && strcmp(table[row].name, name))
            row++;
        if (row == rows)
            fail("unknown option", name);
        if (table[row].text)
            *table[row].text = value;
        else if (table[row].whole)
            *table[row].whole = number(name, value);
        else
            *table[row].flag = number(name, value) != 0;
    }
    if (!options->port || !options->connections || !options->channels)
        fail("needed", "--port, --connections, --channels");
    if (options->subscribed < 1 || options->subscribed > options->channels)
        fail("must lie between 1 and --channels", "--subscribed");
    if (!options->in_flight)
        fail("must be 1 or more", "--in-flight");
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
