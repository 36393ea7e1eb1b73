#include "unpack.h"

#ifdef WITHOUT_ZLIB

bool unpack_available(void)
{
    return false;
}

const uint8_t *unpack(const uint8_t *data, size_t length, size_t *size)
{
    (void)data, (void)length, (void)size;
    return NULL;
}

#else

#include <zlib.h>

bool unpack_available(void)
{
    return true;
}

const uint8_t *unpack(const uint8_t *data, size_t length, size_t *size)
{
    static uint8_t message[UNPACK_SIZE];
    static const uint8_t tail[] = {0x00, 0x00, 0xff, 0xff}; /* what the sender took off (7.2.2) */
    static z_stream stream;
    static bool begun;
    if (!begun) {
        if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
            return NULL;
        begun = true;
    } else if (inflateReset(&stream) != Z_OK) {
        return NULL;
    }
    stream.next_out = message;
    stream.avail_out = sizeof message;
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)length;
    int result = inflate(&stream, Z_SYNC_FLUSH);
    if (result == Z_OK && !stream.avail_in && stream.avail_out) {
        stream.next_in = (Bytef *)tail;
        stream.avail_in = sizeof tail;
        result = inflate(&stream, Z_SYNC_FLUSH);
    }
    if ((result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) || stream.avail_in || !stream.avail_out)
        return NULL;
    *size = sizeof message - stream.avail_out;
    return message;
}

#endif
