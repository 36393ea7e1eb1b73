/* Log-linear histogram of nanoseconds: 32 buckets an octave, so a value is known to about 3 %. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BUCKETS 1920 /* 60 octaves of 32 */

struct histogram {
    uint64_t count, longest;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* The bucket of a value. Below 64 the buckets are exact. driver.py holds the inverse. */
unsigned histogram_bucket(uint64_t value);
void histogram_add(struct histogram *histogram, uint64_t value);
/* {"count":..,"longest":..,"buckets":[[index,count],..]} with the empty buckets left out. */
void histogram_print(FILE *out, const struct histogram *histogram);

#endif
