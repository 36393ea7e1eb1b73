/* What the client says on stdout: lines of JSON, put together from these parts. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "connection.h"

struct run {
    struct client client;
    struct options options;
    uint64_t started_ns, window_ns, progress_ns, churn_ns, join_ns;
    uint64_t longest_pass_ns;
    struct rusage window_usage;
    uint32_t next, churn_next, churned, joins;
    bool announced, leaving;
    char line[4096];
    size_t line_length;
};

/* {"event":..,"seconds":.. and how many connections are in which state; the line stays open. */
void report_state(const struct run *run, const char *event);
/* Length, CPU, longest pass and newcomers of the window. */
void report_window(const struct run *run);
/* One count. */
void report_count(const char *name, uint64_t count);
/* All counts. */
void report_counts(const struct run *run);
/* Close the line and send it. */
void report_end(void);

#endif
