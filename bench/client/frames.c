#define _GNU_SOURCE
#include "client.h"

#include <string.h>
#include <zlib.h>

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d}; /* the example key of RFC 6455, section 5.7 */

ssize_t frame_read(const uint8_t *data, size_t length, struct frame *frame)
{
    if (length < 2)
        return 0;
    if (data[0] & 0x30 || data[1] & 0x80)
        return -1;
    uint64_t payload = data[1] & 0x7f;
    size_t extra = payload < 126 ? 0 : payload == 126 ? 2 : 8, header = 2 + extra;
    if (length < header)
        return 0;
    if (extra)
        payload = 0;
    for (size_t i = 0; i < extra; i++)
        payload = payload << 8 | data[2 + i];
    if (payload > READ_BUFFER / 2)
        return -1;
    if (length < header + payload)
        return 0;
    *frame = (struct frame){data[0] & 0x0f, data[0] & 0x40, data + header, (size_t)payload};
    return (ssize_t)(header + payload);
}

ssize_t event_read(const uint8_t *data, size_t length, struct frame *frame)
{
    const uint8_t *end = memmem(data, length, "\n\n", 2);
    if (!end)
        return length > READ_BUFFER / 2 ? -1 : 0;
    *frame = (struct frame){OP_TEXT, false, data, (size_t)(end - data)};
    return end - data + 2;
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

static bool feed(z_stream *stream, const uint8_t *data, size_t length)
{
    stream->next_in = (Bytef *)data;
    stream->avail_in = (uInt)length;
    int result = inflate(stream, Z_SYNC_FLUSH);
    bool is_good = result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR;
    return is_good && !stream->avail_in && stream->avail_out;
}

bool frame_inflate(struct frame *frame)
{
    static uint8_t message[1 << 20];
    static const uint8_t tail[] = {0x00, 0x00, 0xff, 0xff}; /* what the sender took off (7.2.2) */
    static z_stream stream;
    if ((stream.state ? inflateReset(&stream) : inflateInit2(&stream, -MAX_WBITS)) != Z_OK)
        return false;
    stream.next_out = message;
    stream.avail_out = sizeof message;
    if (!feed(&stream, frame->payload, frame->length) || !feed(&stream, tail, sizeof tail))
        return false;
    frame->payload = message;
    frame->length = sizeof message - stream.avail_out;
    return true;
}
