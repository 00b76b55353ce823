package main

import (
	"net/http"

	"github.com/r3labs/sse/v2"
)

// r3labsStreams is r3labs/sse, whose streams are made by their first subscribers. It sends what pushy does:
// the event's name and its data.
func r3labsStreams(mux *http.ServeMux) publisher {
	server := sse.New()
	server.AutoStream = true
	server.AutoReplay = false
	mux.Handle("/events", server)
	return func(channel string, data []byte) {
		server.Publish(channel, &sse.Event{
			Event: []byte("m"),
			Data:  data,
		})
	}
}
