"""What clients and server send each other: values, and how a wire format turns them into bytes.

incoming     commands of clients, as values          outgoing         what the server sends, as values
wire_format  the interface to the bytes              json_format      the native format
packet       a pass's messages, encoded once         format_registry  which format a connection gets
frames       WebSocket framing (RFC 6455)            deflate          compression (RFC 7692)
channels     channel names and wildcards
"""
