/* RFC 6455 framing as far as a measuring client needs it: headers in, masked frames out. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

struct frame {
    unsigned opcode;
    bool deflated; /* its first reserved bit is set (RFC 7692, section 6) */
    const uint8_t *payload;
    size_t length;
};

enum frame_result { FRAME_WHOLE, FRAME_PARTIAL, FRAME_BAD };

/*
 * Read one frame at data. On FRAME_WHOLE *used is what it took. FRAME_BAD: masked, or longer than limit, or
 * with a reserved bit for which there is no extension.
 */
enum frame_result frame_read(const uint8_t *data, size_t length, size_t limit, struct frame *frame, size_t *used);

/* Write a masked frame of at most 65535 bytes of payload; out needs length + 8 bytes. Returns its size. */
size_t frame_write(uint8_t *out, unsigned opcode, const void *payload, size_t length);

#endif
