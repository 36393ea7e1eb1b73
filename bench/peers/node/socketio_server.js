// Socket.IO, a room for each channel, as its documentation shows: io.to(room).emit().
// Arguments: port, feed socket, ping seconds (0: the library's default, 25), processes (it is one), compression.
'use strict'
const http = require('node:http')
const { Server } = require('socket.io')
const { readFeed } = require('./feed.js')

const [port, feedPath, pingSeconds, , deflate] = process.argv.slice(2)
const server = http.createServer()
const io = new Server(server, {
  transports: ['websocket'],
  pingInterval: (Number(pingSeconds) || 25) * 1000,
  perMessageDeflate: Number(deflate) ? { threshold: 256 } : false
})

io.on('connection', (socket) => {
  socket.on('subscribe', ({ channels }) => {
    socket.join(channels)
    socket.emit('subscription_ack')
  })
})

readFeed(feedPath, (name, text) => io.to(name).emit('message', JSON.parse(text)))

server.listen({ host: '127.0.0.1', port: Number(port), backlog: 4096 })
