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

void report_state(const struct run *run, const char *event)
{
    const struct client *client = &run->client;
    printf("{\"event\":\"%s\",\"seconds\":%.6f,\"open\":%u,\"ready\":%u,\"failed\":%u,\"closed\":%u,"
           "\"stalled_closed\":%u",
           event, seconds(now_ns() - run->started_ns), client->open, client->ready, client->failed, client->closed,
           client->stalled_closed);
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
    printf(",\"%s\":{\"gaps\":%llu,\"missing\":%llu,\"duplicates\":%llu,\"disorder\":%llu,\"stray\":%llu,"
           "\"told\":%llu,\"misnumbered\":%llu}",
           name,
           (unsigned long long)tally->gaps, (unsigned long long)tally->missing,
           (unsigned long long)tally->duplicates, (unsigned long long)tally->disorder,
           (unsigned long long)tally->stray, (unsigned long long)tally->told,
           (unsigned long long)tally->misnumbered);
}

void report_counts(const struct run *run)
{
    const struct client *client = &run->client;
    const struct counts *counts = &client->counts;
    print_tally("tally", &client->tally);
    print_tally("stalled_tally", &client->stalled_tally);
    print_sparse("closes", client->closes, CLOSE_CODES);
    print_sparse("refused", client->refused, HTTP_STATUSES);
    printf(",\"delivered\":%llu,\"stalled_delivered\":%llu,\"bytes\":%llu,\"frames\":%llu,\"control\":%llu",
           (unsigned long long)counts->delivered, (unsigned long long)counts->stalled_delivered,
           (unsigned long long)counts->bytes, (unsigned long long)counts->frames,
           (unsigned long long)counts->control);
    printf(",\"gap_notices\":%llu,\"pings\":%llu,\"churned\":%u,\"latency\":",
           (unsigned long long)client->gap_notices, (unsigned long long)counts->pings, run->churned);
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
    printf(",\"window_seconds\":%.6f,\"cpu_user\":%.6f,\"cpu_system\":%.6f,\"longest_pass\":%.6f,\"passes\":%llu",
           seconds(now_ns() - run->window_ns), cpu(&usage.ru_utime, &run->window_usage.ru_utime),
           cpu(&usage.ru_stime, &run->window_usage.ru_stime), seconds(run->longest_pass_ns),
           (unsigned long long)run->passes);
    printf(",\"joined\":%u,\"join_seconds\":%.6f", run->client.joined,
           run->client.joined ? seconds(run->client.joined_ns - run->join_ns) : 0.0);
}
