// Package sse serves the channels of a [pushy.Server] as Server-Sent Events: to the EventSource of
// browsers, to htmx and Datastar, and to curl. The page needs no client of pushy.
//
//	srv, err := pushy.New(options)
//	…
//	mux.Handle("/pushy/", srv)
//	mux.Handle("/pushy/events", sse.New(srv, sse.Options{}))
//	…
//	err = srv.Publish(ctx, "orders", "status", "<tr id=o7><td>packed</td></tr>")
//
// A page opens one stream for all of its channels:
//
//	new EventSource("/pushy/events?channel=orders&channel=chat")
//
// PROTOCOL.md, section 16, documents the parameters, the events and the answers; docs/htmx.md has
// pages for htmx and Datastar.
//
// # Channels
//
// A stream is a connection of the Server: Options.Accept and Options.Authorizer decide about it,
// Limits count it, hooks are called for it, Conn.Protocol is "sse", and Server.Kick ends it. It can
// only receive. In a private channel it is a member without presence data, unless a token has some,
// and it receives no events about members. A stream gets into private channels by the user that
// Options.Accept returns for its cookie, about whom Options.Authorizer decides, or by a token of
// version 2 for a user (pushy.SignToken), as the header "Authorization: Bearer" or, for at most 10
// minutes, as the parameter auth. If Options.Accept is not set, as in pushy-server, the connection is
// one of the token's user, whoever sends it, and the token is valid for at most an hour.
//
// # Reconnecting
//
// Every event has an id, which is a position in each channel, and clients send it when they reconnect.
// In channels that keep events (ChannelOptions.Keep) they then receive what they have missed. Where
// that is not possible, they receive an event pushy:gap, after which a page should fetch its data
// again.
//
// # http.Server
//
// A stream over HTTP/1.1 without TLS, whose channels keep no events, leaves the http.Server as a WebSocket
// does, so that it costs no more than one: its handler returns when the stream has begun, and
// http.Server.Shutdown does not wait for it. Server.Shutdown ends all streams.
//
// # Proxies
//
// Proxies must not buffer the response; the Server tells nginx so. Browsers open at most six
// connections of HTTP/1.1 to one host, over all tabs, so use HTTP/2 for pages that can be open
// several times.
package sse

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/token"
	"github.com/gopushy/pushy/internal/transport"
)

// Options configure a handler. The zero value is the default.
type Options struct {
	// MaxChannels is the number of channels of one stream, at most 40. Limits.Channels of the
	// Server applies, too. Default 20.
	MaxChannels int
	// MaxAge is the time after which a stream is ended, so that its client reconnects, for example
	// to another server. It is reduced by up to a tenth at random. At least 1 s; a stream of
	// HTTP/1.1 can be ended at any time by proxies, too. Default: streams have no such end.
	MaxAge time.Duration
}

const (
	defaultChannels = 20
	// maxChannels limits Options.MaxChannels, because the positions of all channels must fit into
	// the header of a request.
	maxChannels = 40
)

// handler is the handler that New returns.
type handler struct {
	server     seam.Server
	options    Options
	tokens     token.Keys
	busyRate   *limit.Rate // of busy answers, if Limits.AcceptRate is set
	middleware transport.Middleware
}

// New returns a handler for a Server, which is to be mounted at a path such as "/pushy/events". It
// panics if srv is nil, or if an option is not valid.
func New(srv *pushy.Server, o Options) http.Handler {
	if srv == nil {
		panic("sse: New: the Server is nil")
	}
	if err := o.complete(); err != nil {
		panic("sse: New: " + err.Error())
	}
	parts := seam.Of(srv)
	h := &handler{
		server:     parts,
		options:    o,
		tokens:     token.NewKeys(parts.Keys),
		middleware: transport.Middleware{Log: parts.Notices},
	}
	if rate := parts.AcceptRate; rate > 0 {
		tenth := max(1, rate/10)
		h.busyRate = limit.NewRate(tenth, tenth)
	}
	return h
}

func (o *Options) complete() error {
	limit.Default(&o.MaxChannels, defaultChannels)
	switch {
	case o.MaxChannels < 1 || o.MaxChannels > maxChannels:
		return fmt.Errorf("Options.MaxChannels is %d, must be from 1 to %d", o.MaxChannels, maxChannels)
	case o.MaxAge < 0:
		return errors.New("Options.MaxAge is negative")
	case o.MaxAge > 0 && o.MaxAge < time.Second:
		return fmt.Errorf("Options.MaxAge is %v, must be at least 1s", o.MaxAge)
	}
	return nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	head.Add("Vary", "Origin")
	from, refused := h.server.Origin(r)
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	allowPage(head, r, from)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		preflight(head, r)
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		head.Set("Allow", allowedMethods)
		h.refuse(w, r, &seam.Refusal{
			Status:  http.StatusMethodNotAllowed,
			Message: "the method must be GET",
		})
		return
	}
	want, refused := h.parse(r)
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	if r.Method == http.MethodHead {
		streamHeader(head)
		return
	}
	h.serve(w, r, want)
}
