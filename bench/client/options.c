#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options;

#define TEXT_ROW(name) {"--" #name, &options.name, NULL},
#define NUMBER_ROW(name) {"--" #name, NULL, &options.name},
static const struct {
    const char *name, **text;
    uint32_t *number;
} table[] = {TEXT_OPTIONS(TEXT_ROW) NUMBER_OPTIONS(NUMBER_ROW)};

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "client: %s: %s\n", what, which);
    exit(2);
}

static void set(const char *name, const char *value)
{
    char *end = "";
    size_t row = 0, rows = sizeof table / sizeof *table;
    while (row < rows && strcmp(table[row].name, name))
        row++;
    if (row == rows || !value)
        fail("unknown, or without a value", name);
    if (table[row].text)
        *table[row].text = value;
    else
        *table[row].number = (uint32_t)strtoul(value, &end, 10);
    if (*end)
        fail("not a whole number", name);
}

/* One line for each channel: name, tab, item. */
static void read_channels(void)
{
    char line[512];
    FILE *file = fopen(options.channels_file, "r");
    options.names = calloc(options.channels, sizeof *options.names);
    options.items = calloc(options.channels, sizeof *options.items);
    for (uint32_t i = 0; i < options.channels; i++) {
        char *tab = file && fgets(line, sizeof line, file) ? strchr(line, '\t') : NULL;
        if (!tab)
            fail("fewer lines than --channels", options.channels_file);
        tab[strcspn(tab, "\n")] = 0;
        *tab = 0;
        options.names[i] = strdup(line);
        options.items[i] = strdup(tab + 1);
    }
    fclose(file);
}

void options_read(int count, char **arguments)
{
    for (int i = 1; i < count; i += 2)
        set(arguments[i], arguments[i + 1]);
    if (options.subscribed < 1 || options.subscribed > options.channels)
        fail("must lie between 1 and --channels", "--subscribed");
    read_channels();
}
