#define _GNU_SOURCE
#include "track.h"

#include <string.h>

static const char NEEDLE[] = "\"mark\":\"";
enum { NEEDLE_LENGTH = 8, MARK_LENGTH = 36 };

static uint64_t digits(const uint8_t *at, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value * 10 + (uint64_t)(at[i] - '0');
    return value;
}

bool mark_find(const uint8_t *data, size_t length, struct mark *mark, size_t *end)
{
    const uint8_t *at = memmem(data, length, NEEDLE, NEEDLE_LENGTH);
    if (!at || (size_t)(at - data) + NEEDLE_LENGTH + MARK_LENGTH > length)
        return false;
    at += NEEDLE_LENGTH;
    mark->channel = (uint32_t)digits(at, 5);
    mark->number = (uint32_t)digits(at + 6, 10);
    mark->sent_ns = digits(at + 17, 19);
    *end = (size_t)(at - data) + MARK_LENGTH;
    return true;
}

/* Step on to `number`, which lies ahead; what is skipped is missing. */
static void advance(struct subscription *subscription, uint32_t last, uint32_t number, struct tally *tally)
{
    uint32_t ahead = number - last;
    if (ahead > 1) {
        tally->gaps++;
        tally->missing += ahead - 1;
    }
    subscription->recent = ahead < 64 ? subscription->recent << ahead | 1 : 1;
    subscription->last = number;
}

void track(struct subscription *subscription, uint32_t number, bool from_start, struct tally *tally)
{
    uint32_t last = subscription->last;
    if (!last && !from_start)
        last = number - 1;
    if (number > last) {
        advance(subscription, last, number, tally);
        subscription->had++;
        return;
    }
    uint32_t behind = last - number;
    if (behind >= 64 || subscription->recent >> behind & 1) {
        tally->duplicates++;
        return;
    }
    subscription->recent |= 1ull << behind;
    subscription->had++;
    tally->disorder++;
    if (tally->missing)
        tally->missing--;
}

void track_told(struct subscription *subscription, uint32_t first, uint32_t last, bool from_start, struct tally *tally)
{
    if (last < first)
        return;
    if (!subscription->last && !from_start)
        subscription->last = first - 1;
    if (first <= subscription->last) {
        uint32_t end = last < subscription->last ? last : subscription->last;
        tally->duplicates += end - first + 1;
        first = subscription->last + 1;
        if (last < first)
            return;
    }
    advance(subscription, subscription->last, first, tally);
    uint32_t more = last - first;
    subscription->recent = more < 64 ? subscription->recent << more | ((1ull << more) - 1) : ~0ull;
    subscription->last = last;
    subscription->told += more + 1;
    tally->told += more + 1;
}

uint64_t track_tail(const struct subscription *subscription, uint32_t final, bool from_start)
{
    if (!subscription->last && !from_start)
        return 0;
    return final > subscription->last ? final - subscription->last : 0;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

void track_choose(struct subscription *subscriptions, uint32_t count, uint32_t total, uint32_t id, uint64_t seed)
{
    uint64_t random = mix(seed * 0x100000001ull + id);
    uint32_t first = (uint32_t)(random % total);
    uint32_t step = total > 1 ? 1 + (uint32_t)((random >> 32) % (total - 1)) : 1;
    while (common_divisor(step, total) != 1)
        step = step % total + 1;
    for (uint32_t i = 0; i < count; i++) {
        memset(&subscriptions[i], 0, sizeof subscriptions[i]);
        subscriptions[i].channel = (uint32_t)((first + (uint64_t)i * step) % total);
    }
}
