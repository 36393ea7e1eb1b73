#include "report.h"

#include <stdio.h>

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static double cpu(const struct timeval *now, const struct timeval *then)
{
    return (double)(now->tv_sec - then->tv_sec) + (double)(now->tv_usec - then->tv_usec) / 1e6;
}

void report_count(const char *name, uint64_t count)
{
    printf(",\"%s\":%llu", name, (unsigned long long)count);
}

void report_state(const struct run *run, const char *event)
{
    const struct client *client = &run->client;
    printf("{\"event\":\"%s\",\"seconds\":%.6f", event, seconds(now_ns() - run->started_ns));
    report_count("ready", client->ready);
    report_count("failed", client->failed);
    report_count("closed", client->closed);
    report_count("stalled_closed", client->stalled_closed);
}

static void print_sparse(const char *name, const uint64_t *values, int count)
{
    const char *comma = "";
    printf(",\"%s\":{", name);
    for (int i = 0; i < count; i++) {
        if (values[i]) {
            printf("%s\"%d\":%llu", comma, i, (unsigned long long)values[i]);
            comma = ",";
        }
    }
    putchar('}');
}

static void print_tally(const char *name, const struct tally *tally)
{
    printf(",\"%s\":{\"gaps\":%llu", name, (unsigned long long)tally->gaps);
    report_count("missing", tally->missing);
    report_count("duplicates", tally->duplicates);
    report_count("disorder", tally->disorder);
    report_count("stray", tally->stray);
    report_count("told", tally->told);
    report_count("misnumbered", tally->misnumbered);
    putchar('}');
}

void report_counts(const struct run *run)
{
    const struct client *client = &run->client;
    const struct counts *counts = &client->counts;
    print_tally("tally", &client->tally);
    print_tally("stalled_tally", &client->stalled_tally);
    print_sparse("closes", client->closes, CLOSE_CODES);
    print_sparse("refused", client->refused, HTTP_STATUSES);
    report_count("delivered", counts->delivered);
    report_count("stalled_delivered", counts->stalled_delivered);
    report_count("bytes", counts->bytes);
    report_count("frames", counts->frames);
    report_count("gap_notices", client->gap_notices);
    report_count("pings", counts->pings);
    report_count("churned", run->churned);
    printf(",\"latency\":");
    histogram_print(stdout, &counts->latency);
    printf(",\"subscribe\":");
    histogram_print(stdout, &counts->subscribe);
}

void report_end(void)
{
    puts("}");
    fflush(stdout);
}

void report_window(const struct run *run)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf(",\"window_seconds\":%.6f,\"cpu_user\":%.6f,\"cpu_system\":%.6f,\"longest_pass\":%.6f",
           seconds(now_ns() - run->window_ns), cpu(&usage.ru_utime, &run->window_usage.ru_utime),
           cpu(&usage.ru_stime, &run->window_usage.ru_stime), seconds(run->longest_pass_ns));
    report_count("joined", run->client.joined);
    printf(",\"join_seconds\":%.6f", run->client.joined ? seconds(run->client.joined_ns - run->join_ns) : 0.0);
}
