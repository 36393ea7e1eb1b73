#include "client.h"

#include <stdio.h>
#include <time.h>

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

double cpu_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* totals.py has the inverse: the bound of a bucket. */
static unsigned bucket(uint64_t value)
{
    if (value < 64)
        return (unsigned)value;
    unsigned shift = 58u - (unsigned)__builtin_clzll(value);
    unsigned found = (shift + 1) * 32 + (unsigned)((value >> shift) - 32);
    return found < BUCKETS ? found : BUCKETS - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    if (value > histogram->longest)
        histogram->longest = value;
    histogram->buckets[bucket(value)]++;
}

static const char *comma; /* before the next member of a JSON object */

static void print_count(const char *name, uint64_t count)
{
    printf("%s\"%s\":%llu", comma, name, (unsigned long long)count);
    comma = ",";
}

static void print_seconds(const char *name, double seconds)
{
    printf("%s\"%s\":%.9f", comma, name, seconds);
}

static void begin_object(const char *name)
{
    printf("%s\"%s\":{", comma, name);
    comma = "";
}

static void end_object(void)
{
    putchar('}');
    comma = ",";
}

/* An object of those that are not 0, by index. */
static void print_sparse(const char *name, const uint64_t *values, int count)
{
    char index[12];
    begin_object(name);
    for (int i = 0; i < count; i++) {
        if (values[i]) {
            snprintf(index, sizeof index, "%d", i);
            print_count(index, values[i]);
        }
    }
    end_object();
}

static void print_histogram(const char *name, const struct histogram *histogram)
{
    begin_object(name);
    print_count("longest", histogram->longest);
    print_sparse("buckets", histogram->buckets, BUCKETS);
    end_object();
}

#define PRINT_OF_TALLY(name) print_count(#name, tally->name);
#define PRINT_OF_WINDOW(name) print_count(#name, client.window.name);
#define PRINT(name) print_count(#name, client.name);

static void print_tally(const char *name, const struct tally *tally)
{
    begin_object(name);
    TALLY_COUNTS(PRINT_OF_TALLY)
    end_object();
}

void report(const char *event)
{
    uint64_t now = now_ns();
    printf("{\"event\":\"%s\"", event);
    comma = ",";
    WINDOW_COUNTS(PRINT_OF_WINDOW)
    STATE_COUNTS(PRINT)
    FINAL_COUNTS(PRINT)
    print_tally("tally", &client.tally);
    print_tally("stalled_tally", &client.stalled_tally);
    print_sparse("closes", client.closes, CLOSE_CODES);
    print_sparse("refused", client.refused, HTTP_STATUSES);
    print_histogram("latency", &client.window.latency);
    print_histogram("subscribe", &client.window.subscribe);
    print_seconds("longest_pass", (double)client.window.longest_pass_ns / 1e9);
    print_seconds("seconds", (double)(now - client.started_ns) / 1e9);
    print_seconds("window_seconds", (double)(now - client.window_ns) / 1e9);
    print_seconds("join_seconds", client.joined ? (double)(client.joined_ns - client.window_ns) / 1e9 : 0);
    print_seconds("cpu_seconds", cpu_seconds() - client.window_cpu);
    puts("}");
    fflush(stdout);
}
