#include "histogram.h"

unsigned histogram_bucket(uint64_t value)
{
    if (value < 64)
        return (unsigned)value;
    unsigned shift = 58u - (unsigned)__builtin_clzll(value);
    unsigned bucket = (shift + 1) * 32 + (unsigned)((value >> shift) - 32);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    if (value > histogram->longest)
        histogram->longest = value;
    histogram->buckets[histogram_bucket(value)]++;
}

void histogram_print(FILE *out, const struct histogram *histogram)
{
    const char *comma = "";
    fprintf(out, "{\"count\":%llu,\"longest\":%llu,\"buckets\":[", (unsigned long long)histogram->count,
            (unsigned long long)histogram->longest);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (!histogram->buckets[i])
            continue;
        fprintf(out, "%s[%u,%llu]", comma, i, (unsigned long long)histogram->buckets[i]);
        comma = ",";
    }
    fputs("]}", out);
}
