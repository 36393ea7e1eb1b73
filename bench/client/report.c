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

#define PRINT(key, of, name) printf(",\"" key "\":%llu", (unsigned long long)(of).name);
#define PRINT_COUNT(name) PRINT(#name, client, name)
#define PRINT_OF_WINDOW(name) PRINT(#name, client.window, name)
#define PRINT_OF_TALLY(name) PRINT("tally." #name, client.tally, name)
#define PRINT_OF_STALLED(name) PRINT("stalled_tally." #name, client.stalled_tally, name)

static void print_seconds(const char *name, double seconds)
{
    printf(",\"%s\":%.9f", name, seconds);
}

/* Those that are not 0, by index. */
static void print_sparse(const char *name, const uint64_t *values, int count)
{
    for (int i = 0; i < count; i++)
        if (values[i])
            printf(",\"%s.%d\":%llu", name, i, (unsigned long long)values[i]);
}

void report(const char *event)
{
    uint64_t now = now_ns();
    printf("{\"event\":\"%s\"", event);
    WINDOW_COUNTS(PRINT_OF_WINDOW)
    COUNTS(PRINT_COUNT)
    TALLY_COUNTS(PRINT_OF_TALLY)
    TALLY_COUNTS(PRINT_OF_STALLED)
    print_sparse("closes", client.closes, CLOSE_CODES);
    print_sparse("refused", client.refused, HTTP_STATUSES);
    print_sparse("latency", client.window.latency.buckets, BUCKETS);
    PRINT("latency.longest", client.window.latency, longest)
    print_sparse("subscribe", client.window.subscribe.buckets, BUCKETS);
    PRINT("subscribe.longest", client.window.subscribe, longest)
    print_seconds("longest_pass", (double)client.window.longest_pass_ns / 1e9);
    print_seconds("seconds", (double)(now - client.started_ns) / 1e9);
    print_seconds("window_seconds", (double)(now - client.window_ns) / 1e9);
    print_seconds("join_seconds", client.joined ? (double)(client.joined_ns - client.window_ns) / 1e9 : 0);
    print_seconds("cpu_seconds", cpu_seconds() - client.window_cpu);
    puts("}");
    fflush(stdout);
}
