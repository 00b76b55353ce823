package main

import (
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"
	"github.com/igm/sockjs-go/v3/sockjs"
	"github.com/olahol/melody"
)

func anyOrigin(*http.Request) bool { return true }

// bare has the minimum cost of a server without batching: the frame is made once, and there is
// one write call for each subscriber, no queue, no limit and no deadline.
func bare(mux *http.ServeMux) publisher {
	var all rooms[net.Conn]
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		channel := r.FormValue("channel")
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		all.add(channel, conn)
		go func() {
			defer conn.Close()
			defer all.remove(channel, conn)
			var ignored [128]byte
			for {
				if _, err := conn.Read(ignored[:]); err != nil {
					return
				}
			}
		}()
	})
	return func(channel string, data []byte) {
		frame, err := ws.CompileFrame(ws.NewTextFrame(envelope(channel, data)))
		if err != nil {
			log.Fatal(err)
		}
		all.each(channel, func(conn net.Conn) { _, _ = conn.Write(frame) })
	}
}

// queueAndWriter follows gorilla's chat example: a channel and a writing goroutine for each
// connection, here with a message that is prepared once.
func queueAndWriter(mux *http.ServeMux) publisher {
	type queue chan *websocket.PreparedMessage
	var all rooms[queue]
	upgrader := websocket.Upgrader{WriteBufferPool: &sync.Pool{}, CheckOrigin: anyOrigin}
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		channel := r.FormValue("channel")
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		q := make(queue, 256)
		all.add(channel, q)
		defer close(q)
		defer all.remove(channel, q)
		go func() {
			for m := range q {
				_ = conn.WritePreparedMessage(m)
			}
		}()
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	})
	return func(channel string, data []byte) {
		m, err := websocket.NewPreparedMessage(websocket.TextMessage, envelope(channel, data))
		if err != nil {
			log.Fatal(err)
		}
		all.each(channel, func(q queue) { q <- m })
	}
}

// sockJS is sockjs-go alone: Send, one session after another. Any message of a client
// subscribes it.
func sockJS(mux *http.ServeMux) publisher {
	var all rooms[sockjs.Session]
	options := sockjs.DefaultOptions
	options.WebsocketUpgrader = &websocket.Upgrader{CheckOrigin: anyOrigin}
	mux.Handle("/pushy/socket/", sockjs.NewHandler("/pushy/socket", options, func(s sockjs.Session) {
		defer all.remove("bench", s)
		_ = s.Send(`{"event":"pushy:connect","data":{}}`)
		for {
			if _, err := s.Recv(); err != nil {
				return
			}
			all.add("bench", s)
			_ = s.Send(`{"event":"pushy:subscription-success","data":{}}`)
		}
	}))
	return func(channel string, data []byte) {
		text := string(envelope(channel, data))
		all.each(channel, func(s sockjs.Session) { _ = s.Send(text) })
	}
}

func melodyBroadcast(mux *http.ServeMux) publisher {
	m := melody.New()
	m.Upgrader.CheckOrigin = anyOrigin
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _ = m.HandleRequest(w, r) })
	return func(channel string, data []byte) { _ = m.Broadcast(envelope(channel, data)) }
}
