"""What clients and server send each other: values, and how a wire format turns them into bytes.

protocol     channels, commands and answers, as values
wire_format  the interface to the bytes, which format a connection gets, and packets in several formats
event_format  event streams over plain HTTP
json_format  the native format                 unread_json  payloads that decoders do not read
frames       WebSocket framing (RFC 6455)      deflate  compression (RFC 7692)
"""
