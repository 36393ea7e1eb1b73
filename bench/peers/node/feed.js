// Reads the bench's feed: lines of a channel's name, a space and a text.
'use strict'
const net = require('node:net')
const readline = require('node:readline')

/** Call onMessage(channel, text as Buffer) for each line; the process ends with the feed. */
exports.readFeed = (path, onMessage) => {
  const lines = readline.createInterface({ input: net.connect(path) })
  lines.on('line', (line) => {
    const space = line.indexOf(' ')
    onMessage(line.slice(0, space), Buffer.from(line.slice(space + 1)))
  })
  lines.on('close', () => process.exit(0))
}

/** The channels of {"type":"subscribe","data":{"channels":[...]}}. */
exports.channelsOf = (text) => JSON.parse(text).data.channels

exports.ACK = '{"type":"subscription_ack"}'
