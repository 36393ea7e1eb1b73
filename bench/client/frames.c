#include "frames.h"

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d}; /* the example key of RFC 6455, section 5.7 */

enum frame_result frame_read(const uint8_t *data, size_t length, size_t limit, struct frame *frame, size_t *used)
{
    if (length < 2)
        return FRAME_PARTIAL;
    if (data[0] & 0x30 || data[1] & 0x80)
        return FRAME_BAD;
    size_t header = 2;
    uint64_t payload = data[1] & 0x7f;
    if (payload >= 126) {
        size_t extra = payload == 126 ? 2 : 8;
        header += extra;
        if (length < header)
            return FRAME_PARTIAL;
        payload = 0;
        for (size_t i = 0; i < extra; i++)
            payload = payload << 8 | data[2 + i];
    }
    if (payload > limit)
        return FRAME_BAD;
    if (length < header + payload)
        return FRAME_PARTIAL;
    frame->opcode = data[0] & 0x0f;
    frame->deflated = data[0] & 0x40;
    frame->payload = data + header;
    frame->length = (size_t)payload;
    *used = header + (size_t)payload;
    return FRAME_WHOLE;
}

size_t frame_write(uint8_t *out, unsigned opcode, const void *payload, size_t length)
{
    const uint8_t *bytes = payload;
    size_t at = 0;
    out[at++] = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        out[at++] = (uint8_t)(0x80 | length);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(length >> 8);
        out[at++] = (uint8_t)length;
    }
    for (int i = 0; i < 4; i++)
        out[at++] = MASK[i];
    for (size_t i = 0; i < length; i++)
        out[at++] = bytes[i] ^ MASK[i & 3];
    return at;
}
