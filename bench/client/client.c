/*
 * A measuring WebSocket client: opens many connections, subscribes, counts and judges what arrives.
 *
 * Commands on stdin, one a line; each is answered by one line of JSON on stdout, beside a progress line a second:
 *   begin         forget all counts but those of faults and closes: a measured window starts
 *   end           the counts since begin ("window")
 *   quiet         stop churn and joins, let stalled connections read again ("quiet")
 *   finish FILE   FILE has, line by line, how many messages each channel had: the verdict ("final")
 *   quit          (or end of input) leave
 * "ready" is printed by itself when no connection is left to be opened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "report.h"

enum { STDIN_TAG = 0xffffffff, TICK_MS = 10, SPARE_FILES = 64 };

static uint32_t total(const struct run *run)
{
    return run->options.connections + run->options.joins;
}

static void begin(struct run *run)
{
    memset(&run->client.counts, 0, sizeof run->client.counts);
    run->longest_pass_ns = run->churned = 0;
    run->window_ns = run->churn_ns = run->join_ns = now_ns();
    getrusage(RUSAGE_SELF, &run->window_usage);
    report_state(run, "begin");
    report_end();
}

static void end(const struct run *run)
{
    report_state(run, "window");
    report_window(run);
    report_counts(run);
    report_end();
}

static void quiet(struct run *run)
{
    struct client *client = &run->client;
    client->quiet = true;
    for (uint32_t i = 0; i < run->options.connections; i++) {
        struct connection *connection = &client->connections[i];
        if (connection->stalled && connection->state == READY)
            connection_resume(client, connection);
    }
    report_state(run, "quiet");
    report_end();
}

static void finish(const struct run *run, const char *path)
{
    const struct options *options = &run->options;
    uint32_t *finals = calloc(options->channels, sizeof *finals);
    uint64_t tail = 0, stalled_tail = 0, after_close = 0;
    uint32_t unequal = 0, stalled_unequal = 0;
    FILE *file = fopen(path, "r");
    for (uint32_t i = 0; file && i < options->channels && fscanf(file, "%u", &finals[i]) == 1; i++)
        ;
    if (file)
        fclose(file);
    for (uint32_t i = 0; i < total(run); i++) {
        const struct connection *connection = &run->client.connections[i];
        bool open = connection->state == READY, from_start = options->expect_first && !connection->returned;
        bool equal = true;
        if (!open && !(connection->state == CLOSED && connection->served))
            continue;
        for (uint32_t j = 0; j < options->subscribed; j++) {
            const struct subscription *subscription = &connection->subscriptions[j];
            uint32_t final = finals[subscription->channel];
            uint64_t rest = track_tail(subscription, final, from_start);
            *(!open ? &after_close : connection->stalled ? &stalled_tail : &tail) += rest;
            if (subscription->had + subscription->told + (open ? 0 : rest) != final)
                equal = false;
        }
        if (!equal && from_start)
            *(connection->stalled ? &stalled_unequal : &unequal) += 1;
    }
    free(finals);
    report_state(run, "final");
    report_count("tail_missing", tail);
    report_count("stalled_tail_missing", stalled_tail);
    report_count("after_close", after_close);
    report_count("unequal", unequal);
    report_count("stalled_unequal", stalled_unequal);
    report_counts(run);
    report_end();
}

static void command(struct run *run, char *line)
{
    if (!strcmp(line, "begin"))
        begin(run);
    else if (!strcmp(line, "end"))
        end(run);
    else if (!strcmp(line, "quiet"))
        quiet(run);
    else if (!strncmp(line, "finish ", 7))
        finish(run, line + 7);
    else
        run->leaving = true;
}

static void read_commands(struct run *run)
{
    ssize_t got = read(0, run->line + run->line_length, sizeof run->line - 1 - run->line_length);
    if (got <= 0) {
        run->leaving = got == 0 || errno != EAGAIN;
        return;
    }
    run->line_length += (size_t)got;
    char *newline;
    while ((newline = memchr(run->line, '\n', run->line_length))) {
        *newline = 0;
        command(run, run->line);
        size_t used = (size_t)(newline - run->line) + 1;
        run->line_length -= used;
        memmove(run->line, newline + 1, run->line_length);
    }
}

static void connect_or_fail(struct client *client, struct connection *connection)
{
    if (!connection_begin(client, connection)) {
        client->failed++;
        client->refused[0]++;
    }
}

/* Open what rate and in_flight allow. A connection that cannot even begin counts as failed. */
static void ramp(struct run *run, uint64_t now)
{
    const struct options *options = &run->options;
    struct client *client = &run->client;
    uint64_t allowed = options->connections;
    if (options->rate)
        allowed = 1 + (now - run->started_ns) * options->rate / 1000000000ull;
    while (run->next < options->connections && run->next < allowed && client->in_flight < options->in_flight) {
        connect_or_fail(client, &client->connections[run->next]);
        run->next++;
    }
    if (!run->announced && run->next == options->connections && !client->in_flight) {
        run->announced = true;
        report_state(run, "ready");
        report_counts(run);
        report_end();
    }
}

static void churn(struct run *run, uint64_t now)
{
    const struct options *options = &run->options;
    struct client *client = &run->client;
    if (!options->churn_per_second || client->quiet || !run->churn_ns)
        return;
    uint64_t due = (now - run->churn_ns) * options->churn_per_second / 1000000000ull;
    for (uint32_t tried = 0; run->churned < due && tried < options->connections; tried++) {
        struct connection *connection = &client->connections[run->churn_next];
        run->churn_next = (run->churn_next + 1) % options->connections;
        if (connection->state != READY || connection->stalled)
            continue;
        connection_leave(client, connection);
        run->churned++;
        connect_or_fail(client, connection);
    }
}

/* Within the window: newcomers, as join_rate and in_flight allow. */
static void join(struct run *run, uint64_t now)
{
    const struct options *options = &run->options;
    struct client *client = &run->client;
    if (!run->join_ns || client->quiet)
        return;
    uint64_t due = (now - run->join_ns) * options->join_rate / 1000000000ull;
    while (run->joins < options->joins && run->joins < due && client->in_flight < options->in_flight)
        connect_or_fail(client, &client->connections[options->connections + run->joins++]);
}

static void raise_file_limit(const struct options *options)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < options->connections + options->joins + SPARE_FILES) {
        fprintf(stderr, "client: %u connections need more than the %llu open files allowed (RLIMIT_NOFILE)\n",
                options->connections + options->joins, (unsigned long long)limit.rlim_cur);
        exit(3);
    }
}

static void prepare(struct run *run)
{
    const struct options *options = &run->options;
    struct client *client = &run->client;
    client->options = options;
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->buffer = malloc(READ_BUFFER);
    client->connections = calloc(total(run), sizeof *client->connections);
    struct subscription *subscriptions =
        calloc((size_t)total(run) * options->subscribed, sizeof *subscriptions);
    for (uint32_t i = 0; i < total(run); i++) {
        struct connection *connection = &client->connections[i];
        connection->id = options->first_id + i;
        connection->subscriptions = subscriptions + (size_t)i * options->subscribed;
        connection->returned = i >= options->connections;
        connection->stalled =
            !connection->returned && connection->id * 2654435761u / 1000u % 1000u < options->stall_permille;
    }
    fcntl(0, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN_TAG};
    epoll_ctl(client->epoll, EPOLL_CTL_ADD, 0, &event);
    run->started_ns = run->progress_ns = now_ns();
}

static void loop(struct run *run)
{
    struct client *client = &run->client;
    int size = (int)total(run) + 1;
    struct epoll_event *events = calloc((size_t)size, sizeof *events);
    while (!run->leaving) {
        int count = epoll_wait(client->epoll, events, size, TICK_MS);
        uint64_t woken = now_ns();
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != STDIN_TAG) {
                struct connection *connection = &client->connections[events[i].data.u32];
                if (connection->state != IDLE && connection->state != CLOSED)
                    connection_event(client, connection, events[i].events);
            }
        }
        ramp(run, woken);
        churn(run, woken);
        join(run, woken);
        uint64_t now = now_ns();
        if (now - woken > run->longest_pass_ns)
            run->longest_pass_ns = now - woken;
        if (now - run->progress_ns >= 1000000000ull) {
            run->progress_ns = now;
            report_state(run, "progress");
            report_count("delivered", client->counts.delivered);
            report_end();
        }
        for (int i = 0; i < count; i++)
            if (events[i].data.u32 == STDIN_TAG)
                read_commands(run);
    }
    free(events);
}

int main(int count, char **arguments)
{
    static struct run run;
    options_read(&run.options, count, arguments);
    raise_file_limit(&run.options);
    prepare(&run);
    loop(&run);
    return 0;
}
