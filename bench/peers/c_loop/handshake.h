/* The server's half of the opening handshake (RFC 6455, section 4.2.2). */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stddef.h>

/*
 * Write the 101 response to a whole request head into out (at least 200 bytes); returns its length,
 * or 0 when the request has no Sec-WebSocket-Key of 24 characters.
 */
size_t handshake_response(const char *request, size_t length, char *out);

#endif
