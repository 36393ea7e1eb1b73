// Go gorilla, after its chat example: one hub, and for each client a reader and a writer goroutine; broadcasts are
// PreparedMessages. Arguments: port, feed socket, ping seconds (0: none), processes (it is one), compression (1: on).
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const writeWait = 10 * time.Second

var acknowledgement = []byte(`{"type":"subscription_ack"}`)

type client struct {
	connection *websocket.Conn
	send       chan *websocket.PreparedMessage
	channels   []string
	removed    bool // by the hub, which has closed send
}

type subscription struct {
	client   *client
	channels []string
}

type message struct {
	channel string
	text    []byte
}

type hub struct {
	channels   map[string]map[*client]bool
	subscribe  chan subscription
	unregister chan *client
	broadcast  chan message
}

func prepare(text []byte) *websocket.PreparedMessage {
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
	if err != nil {
		log.Fatal(err)
	}
	return prepared
}

func (h *hub) remove(c *client) {
	if c.removed {
		return
	}
	for _, name := range c.channels {
		delete(h.channels[name], c)
	}
	c.removed = true
	close(c.send)
}

func (h *hub) run() {
	ack := prepare(acknowledgement)
	for {
		select {
		case s := <-h.subscribe:
			if s.client.removed {
				continue
			}
			for _, name := range s.channels {
				if h.channels[name] == nil {
					h.channels[name] = map[*client]bool{}
				}
				h.channels[name][s.client] = true
			}
			s.client.channels = append(s.client.channels, s.channels...)
			s.client.send <- ack
		case c := <-h.unregister:
			h.remove(c)
		case m := <-h.broadcast:
			prepared := prepare(m.text)
			for c := range h.channels[m.channel] {
				select {
				case c.send <- prepared:
				default:
					h.remove(c)
				}
			}
		}
	}
}

func (c *client) read(h *hub, pong time.Duration) {
	defer func() {
		h.unregister <- c
		c.connection.Close()
	}()
	if pong > 0 {
		c.connection.SetReadDeadline(time.Now().Add(pong))
		c.connection.SetPongHandler(func(string) error {
			return c.connection.SetReadDeadline(time.Now().Add(pong))
		})
	}
	for {
		var command struct {
			Data struct{ Channels []string }
		}
		_, text, err := c.connection.ReadMessage()
		if err != nil || json.Unmarshal(text, &command) != nil {
			return
		}
		h.subscribe <- subscription{c, command.Data.Channels}
	}
}

func (c *client) write(ping time.Duration) {
	defer c.connection.Close()
	var tick <-chan time.Time
	if ping > 0 {
		ticker := time.NewTicker(ping)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case prepared, open := <-c.send:
			c.connection.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				c.connection.WriteMessage(websocket.CloseMessage, []byte{})
				return
			}
			if c.connection.WritePreparedMessage(prepared) != nil {
				return
			}
		case <-tick:
			c.connection.SetWriteDeadline(time.Now().Add(writeWait))
			if c.connection.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func readFeed(path string, h *hub) {
	socket, err := net.Dial("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(socket)
	for lines.Scan() {
		channel, text, _ := strings.Cut(lines.Text(), " ")
		h.broadcast <- message{channel, []byte(text)}
	}
	os.Exit(0)
}

func main() {
	seconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	ping := time.Duration(seconds) * time.Second
	h := &hub{
		channels:   map[string]map[*client]bool{},
		subscribe:  make(chan subscription),
		unregister: make(chan *client),
		broadcast:  make(chan message),
	}
	go h.run()
	go readFeed(os.Args[2], h)
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024, EnableCompression: os.Args[5] == "1"}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		connection, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{connection: connection, send: make(chan *websocket.PreparedMessage, 256)}
		go c.write(ping)
		go c.read(h, ping*2)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
