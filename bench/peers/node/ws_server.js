// Node ws, broadcasting as its README shows: a loop of send() over the clients, here those of a channel.
// Arguments: port, feed socket, ping seconds (0: none), processes (it is one), compression (1: as its README shows).
'use strict'
const { WebSocket, WebSocketServer } = require('ws')
const { readFeed, channelsOf, ACK } = require('./feed.js')

const [port, feedPath, pingSeconds, , deflate] = process.argv.slice(2)
const channels = new Map()
// Its threshold is 1,024 bytes by default: as low as odinws's here, or nothing would be compressed.
const perMessageDeflate = Number(deflate)
  ? { zlibDeflateOptions: { chunkSize: 1024, memLevel: 7, level: 3 }, threshold: 256 }
  : false
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), backlog: 4096, perMessageDeflate })

server.on('connection', (client) => {
  client.isAlive = true
  client.subscribed = []
  client.on('error', console.error)
  client.on('pong', () => { client.isAlive = true })
  client.on('message', (data) => {
    for (const name of channelsOf(data)) {
      if (!channels.has(name)) channels.set(name, new Set())
      channels.get(name).add(client)
      client.subscribed.push(name)
    }
    client.send(ACK)
  })
  client.on('close', () => {
    for (const name of client.subscribed) channels.get(name).delete(client)
  })
})

readFeed(feedPath, (name, text) => {
  for (const client of channels.get(name) ?? []) {
    if (client.readyState === WebSocket.OPEN) client.send(text, { binary: false })
  }
})

if (Number(pingSeconds)) {
  setInterval(() => {
    for (const client of server.clients) {
      if (!client.isAlive) {
        client.terminate()
        continue
      }
      client.isAlive = false
      client.ping()
    }
  }, Number(pingSeconds) * 1000)
}
