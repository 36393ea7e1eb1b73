/*
 * Options come in the environment; when one is missing or wrong it says so and exits with status 2. Commands come on
 * stdin, one a line, each after the answer to the last: one line of JSON on stdout, with an "event" of that name.
 *   begin         a measured window starts: forget the counts of a window
 *   end           nothing but the answer
 *   vanish        those who vanish do, and come back later if away_ms is not 0; once
 *   leave         all do, for good
 *   quiet         stop churn and joins, let stalled connections read again
 *   finish COUNT  judge what did not come, when so many messages were published
 * At the end of the input it leaves. "ready" is said unasked, when no connection is left to be opened.
 */
#define _GNU_SOURCE
#include "client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

enum { STDIN_TAG = 0xffffffff, TICK_MS = 10, RETRY_NS = 1000000000 };

struct options options;
struct client client;
static uint32_t total, begun, churn_next;
static bool announced, in_window, leaving;

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Used by this process. */
static double cpu_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* driver.py has the inverse: the bound of a bucket. */
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

/* One line of JSON with all counts; the members of a group are named `group.member`. */
static void report(const char *event)
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
    print_seconds("return_seconds", client.returned ? (double)(client.returned_ns - client.return_ns) / 1e9 : 0);
    print_seconds("catch_up_seconds", client.caught_up ? (double)(client.caught_up_ns - client.return_ns) / 1e9 : 0);
    print_seconds("cpu_seconds", cpu_seconds() - client.window_cpu);
    puts("}");
    fflush(stdout);
}

static void begin(void)
{
    memset(&client.window, 0, sizeof client.window);
    in_window = true;
    client.window_ns = now_ns();
    client.window_cpu = cpu_seconds();
}

static void quiet(void)
{
    client.quiet = true;
    for (uint32_t i = 0; i < options.connections; i++)
        if (client.connections[i].stalled && client.connections[i].state == READY)
            connection_resume(&client.connections[i]);
}

/* The first `count` connections, as far as they are there. */
static void vanish(uint32_t count)
{
    client.return_ns = now_ns() + (uint64_t)options.away_ms * 1000000;
    for (uint32_t i = 0; i < count; i++) {
        struct connection *connection = &client.connections[i];
        if (connection->state != READY)
            continue;
        connection_vanish(connection);
        if (options.away_ms && !client.quiet)
            connection_wait(connection);
    }
}

static void read_command(void)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin)) {
        leaving = true;
        return;
    }
    char *name = strtok(line, " \n"), *count = strtok(NULL, "\n");
    if (!name)
        return;
    if (!strcmp(name, "begin"))
        begin();
    else if (!strcmp(name, "vanish"))
        vanish(options.vanishing);
    else if (!strcmp(name, "leave"))
        vanish(total);
    else if (!strcmp(name, "quiet"))
        quiet();
    else if (!strcmp(name, "finish") && count)
        for (uint32_t i = 0; i < total; i++)
            judge_end(&client.connections[i], strtoull(count, NULL, 10));
    report(name);
}

static uint64_t due(uint64_t now, uint64_t since, uint32_t per_second)
{
    return (now - since) * per_second / 1000000000ull;
}

/* Open what rates and in_flight allow: first the connections, in the window the newcomers behind them. */
static void open_more(uint64_t now)
{
    uint64_t end = options.connections, allowed = end;
    if (begun < end && options.ramp_per_second)
        allowed = 1 + due(now, client.started_ns, options.ramp_per_second);
    if (begun >= end && in_window && !client.quiet) {
        allowed += due(now, client.window_ns, options.join_rate);
        end = total;
    }
    while (begun < end && begun < allowed && client.in_flight < options.in_flight)
        connection_begin(&client.connections[begun++]);
    if (!announced && begun == options.connections && !client.in_flight && !client.waiting) {
        announced = true;
        report("ready");
    }
}

/* Those who vanished come back, as fast as in_flight allows; who was refused with 503 tries again after a second. */
static void try_again(uint64_t now)
{
    static uint32_t next;
    if (!client.waiting || client.quiet || now < client.return_ns)
        return;
    for (uint32_t tried = 0; tried < total && client.in_flight < options.in_flight; tried++) {
        struct connection *connection = &client.connections[next];
        next = (next + 1) % total;
        if (connection->waits && now - connection->begun_ns >= RETRY_NS)
            connection_begin(connection);
    }
}

static void churn(uint64_t now)
{
    uint64_t wanted = due(now, client.window_ns, options.churn_per_second);
    for (uint32_t tried = 0; client.window.churned < wanted && tried < options.connections; tried++) {
        struct connection *connection = &client.connections[churn_next];
        churn_next = (churn_next + 1) % options.connections;
        if (connection->state != READY || connection->stalled)
            continue;
        connection_leave(connection);
        client.window.churned++;
        connection_begin(connection);
    }
}

/* Subscriptions without repetition, the same for the same seed: the head of a deck that is shuffled on and on. */
static void choose(struct subscription *subscriptions, uint32_t *deck)
{
    for (uint32_t i = 0; i < options.subscribed; i++) {
        uint32_t other = i + (uint32_t)random() % (options.channels - i), drawn = deck[other];
        deck[other] = deck[i];
        subscriptions[i].channel = deck[i] = drawn;
    }
}

static const char *option(const char *name)
{
    const char *value = getenv(name);
    if (value)
        return value;
    fprintf(stderr, "client: no value for %s\n", name);
    exit(2);
}

#define READ_TEXT(name) options.name = option(#name);
#define READ_NUMBER(name) options.name = (uint32_t)strtoul(option(#name), NULL, 10);

static void prepare(void)
{
    TEXT_OPTIONS(READ_TEXT)
    NUMBER_OPTIONS(READ_NUMBER)
    if (options.subscribed < 1 || options.subscribed > options.channels) {
        fputs("client: subscribed must lie between 1 and channels\n", stderr);
        exit(2);
    }
    total = options.connections + options.joins;
    client.connections = calloc(total, sizeof *client.connections);
    struct subscription *subscriptions = calloc((size_t)total * options.subscribed, sizeof *subscriptions);
    uint32_t *deck = calloc(options.channels, sizeof *deck);
    for (uint32_t i = 0; i < options.channels; i++)
        deck[i] = i;
    srandom(options.seed * 1000003u + options.first_id);
    for (uint32_t i = 0; i < total; i++) {
        struct connection *connection = &client.connections[i];
        connection->id = options.first_id + i;
        connection->subscriptions = subscriptions + (size_t)i * options.subscribed;
        connection->returned = i >= options.connections;
        connection->vanishes = i < options.vanishing;
        connection->stalled =
            !connection->returned && connection->id * 2654435761u / 1000u % 1000u < options.stall_permille;
        choose(connection->subscriptions, deck);
    }
    free(deck);
    client.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN_TAG};
    epoll_ctl(client.epoll, EPOLL_CTL_ADD, 0, &event);
    client.started_ns = client.window_ns = now_ns();
}

static void pass(struct epoll_event *events)
{
    bool commanded = false;
    int count = epoll_wait(client.epoll, events, (int)total + 1, TICK_MS);
    uint64_t woken = now_ns();
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == STDIN_TAG) {
            commanded = true;
            continue;
        }
        struct connection *connection = &client.connections[events[i].data.u32];
        if (connection->state != IDLE && connection->state != CLOSED)
            connection_event(connection);
    }
    open_more(woken);
    if (in_window && !client.quiet)
        churn(woken);
    try_again(woken);
    uint64_t took = now_ns() - woken;
    if (took > client.window.longest_pass_ns)
        client.window.longest_pass_ns = took;
    if (commanded)
        read_command();
}

int main(void)
{
    prepare();
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    struct epoll_event *events = calloc(total + 1, sizeof *events);
    while (!leaving)
        pass(events);
    return 0;
}
