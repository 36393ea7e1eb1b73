// uWebSockets, broadcasting by its own publish and subscribe.
// Arguments: port, feed socket, ping seconds (0: none), processes (they share the port, as uWebSockets does by default),
// compression (1: by the compressor that connections share).
'use strict'
const uws = require('uwebsockets')
const { fork } = require('node:child_process')
const { readFeed, channelsOf, ACK } = require('./feed.js')

const [port, feedPath, pingSeconds, processes, deflate] = process.argv.slice(2)
for (let count = 1; count < Number(processes); count++) fork(__filename, [port, feedPath, pingSeconds, '1', deflate])
// It pings by itself, 8 seconds before a silent connection is given up.
const idleTimeout = Number(pingSeconds) ? Number(pingSeconds) + 8 : 0
const app = uws.App()

const compress = Number(deflate) === 1

app.ws('/*', {
  compression: compress ? uws.SHARED_COMPRESSOR : uws.DISABLED,
  idleTimeout,
  sendPingsAutomatically: true,
  message: (client, message) => {
    for (const name of channelsOf(Buffer.from(message).toString())) client.subscribe(name)
    client.send(ACK)
  }
})

app.listen('127.0.0.1', Number(port), (listening) => {
  if (!listening) process.exit(1)
})

readFeed(feedPath, (name, text) => { app.publish(name, text, false, compress) })
