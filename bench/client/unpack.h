/* Inflating what a server compressed by permessage-deflate without context takeover (RFC 7692). */
#ifndef UNPACK_H
#define UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNPACK_SIZE = 1 << 20 };

/* Whether this client was built with zlib. */
bool unpack_available(void);

/*
 * Inflate one message. The result, of *size bytes, holds until the next call. NULL: it is no deflate stream, or
 * longer than UNPACK_SIZE.
 */
const uint8_t *unpack(const uint8_t *data, size_t length, size_t *size);

#endif
