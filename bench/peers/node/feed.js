// Reads the bench's feed: 4 bytes length of the rest, 2 bytes length of the channel's name, name, text.
'use strict'
const net = require('node:net')

/** Call onMessage(channel, text as Buffer) for each record; the process ends with the feed. */
exports.readFeed = (path, onMessage) => {
  let rest = Buffer.alloc(0)
  const socket = net.connect(path)
  socket.on('data', (data) => {
    rest = rest.length ? Buffer.concat([rest, data]) : data
    while (rest.length >= 4) {
      const end = 4 + rest.readUInt32BE(0)
      if (rest.length < end) break
      const text = 6 + rest.readUInt16BE(4)
      onMessage(rest.toString('latin1', 6, text), rest.subarray(text, end))
      rest = rest.subarray(end)
    }
  })
  socket.on('close', () => process.exit(0))
  socket.on('error', (error) => { console.error(error.message) })
}

/** The channels of {"type":"subscribe","data":{"channels":[...]}}. */
exports.channelsOf = (text) => JSON.parse(text).data.channels

exports.ACK = '{"type":"subscription_ack"}'
