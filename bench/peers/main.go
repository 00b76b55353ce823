// Command peers runs one of the Go servers with which pushy is compared. WebSocket clients
// subscribe, in the way of each peer, and POST /publish?channel=NAME sends its body to all
// subscribers of the channel.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/gopushy/pushy/bench/internal/serve"
)

// publisher sends JSON data to all subscribers of a channel.
type publisher func(channel string, data []byte)

var kinds = map[string]func(*http.ServeMux) publisher{
	"bare":            bare,
	"http":            func(*http.ServeMux) publisher { return func(string, []byte) {} },
	"gorilla":         queueAndWriter,
	"sockjsgo":        sockJS,
	"melody":          melodyBroadcast,
	"r3labs":          r3labsStreams,
	"centrifuge":      func(mux *http.ServeMux) publisher { return centrifugeNode(mux, false) },
	"centrifugetuned": func(mux *http.ServeMux) publisher { return centrifugeNode(mux, true) },
}

func main() {
	kind := flag.String("kind", "bare", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	flag.Parse()
	open := kinds[*kind]
	if open == nil {
		log.Fatalf("unknown kind %q", *kind)
	}
	mux := http.NewServeMux()
	publish := open(mux)
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		publish(r.FormValue("channel"), data)
		_, _ = io.WriteString(w, "ok")
	})
	serve.Main(mux, nil)
}

// envelope returns the message that pushy sends for an event, so that all servers send the same
// bytes.
func envelope(channel string, data []byte) []byte {
	b, err := json.Marshal(struct {
		Event   string          `json:"event"`
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
	}{"m", channel, data})
	if err != nil {
		log.Fatal(err) // the load generator sends nothing else
	}
	return b
}

// rooms has the subscribers of each channel, in a map under one lock, as an app would write it.
type rooms[M comparable] struct {
	mu      sync.Mutex
	members map[string]map[M]bool
}

func (r *rooms[M]) add(channel string, m M) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members == nil {
		r.members = map[string]map[M]bool{}
	}
	if r.members[channel] == nil {
		r.members[channel] = map[M]bool{}
	}
	r.members[channel][m] = true
}

func (r *rooms[M]) remove(channel string, m M) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members[channel], m)
}

func (r *rooms[M]) each(channel string, do func(M)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range r.members[channel] {
		do(m)
	}
}
