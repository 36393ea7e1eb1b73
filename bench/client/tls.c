#include "client.h"

#include <errno.h>

#ifdef WITH_TLS
#include <openssl/ssl.h>

bool tls_begin(struct connection *connection)
{
    static SSL_CTX *context;
    if (!context)
        context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    connection->tls = SSL_new(context);
    return connection->tls && SSL_set_fd(connection->tls, connection->fd);
}

static int result_of(struct connection *connection, int returned)
{
    int error = SSL_get_error(connection->tls, returned);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

int tls_handshake(struct connection *connection)
{
    int done = SSL_connect(connection->tls);
    if (done == 1)
        return 1;
    return result_of(connection, done) < 0 && errno == EAGAIN ? 0 : -1;
}

ssize_t tls_send(struct connection *connection, const void *data, size_t length)
{
    int sent = SSL_write(connection->tls, data, (int)length);
    return sent > 0 ? sent : result_of(connection, sent);
}

ssize_t tls_receive(struct connection *connection, void *data, size_t room)
{
    size_t have = 0;
    int got = 0;
    while (have < room && (got = SSL_read(connection->tls, (uint8_t *)data + have, (int)(room - have))) > 0)
        have += (size_t)got;
    return have ? (ssize_t)have : result_of(connection, got);
}

void tls_end(struct connection *connection)
{
    SSL_free(connection->tls);
    connection->tls = NULL;
}
#else
bool tls_begin(struct connection *connection)
{
    (void)connection;
    return false;
}

int tls_handshake(struct connection *connection)
{
    (void)connection;
    return -1;
}

ssize_t tls_send(struct connection *connection, const void *data, size_t length)
{
    (void)connection, (void)data, (void)length;
    errno = ENOTSUP;
    return -1;
}

ssize_t tls_receive(struct connection *connection, void *data, size_t room)
{
    return tls_send(connection, data, room);
}

void tls_end(struct connection *connection)
{
    (void)connection;
}
#endif
