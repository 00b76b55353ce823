package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/webhooksign"
)

// Format is the form of the requests. The zero value is that of Standard Webhooks, whose requests
// Options.Secret signs. Pusher returns another one.
type Format struct{ form form }

// form renders and signs requests.
type form interface {
	// check returns an error that names what is not valid.
	check(o *Options, serverKeys []string) error
	// warn logs what is valid and unwise.
	warn(log *slog.Logger)
	// has reports whether requests can have an event.
	has(event string) bool
	// shows reports whether requests can have the members of a channel.
	shows(channel string) bool
	// sender returns the user of an event that a client has sent.
	sender(c *hub.Conn, ch *hub.Channel, member string) string
	// encode returns the JSON of an event, or nil if requests cannot have it.
	encode(e event) ([]byte, error)
	// body returns the body of a request.
	body(at time.Time, items []item) []byte
	sign(header http.Header, id string, at time.Time, content []byte)
	// trying is how long a request is tried before its events are lost.
	trying() time.Duration
	// ends reports whether the status of an answer says that the receiver wants no more requests.
	ends(status int) bool
}

// standard is the form of Standard Webhooks.
type standard struct{ keys []webhooksign.Key }

func (f *standard) check(o *Options, serverKeys []string) error {
	for i, secret := range append([]string{o.Secret}, o.OldSecrets...) {
		name := "Options.Secret"
		if i > 0 {
			name = fmt.Sprintf("Options.OldSecrets[%d]", i-1)
		}
		key, err := webhooksign.ParseKey(secret)
		if err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
		// A receiver has the secret, and with the secret key it could do anything.
		if slices.ContainsFunc(serverKeys, key.Same) {
			return fmt.Errorf("%s is a secret key of the server: make a secret of its own", name)
		}
		f.keys = append(f.keys, key)
	}
	return nil
}

func (*standard) warn(*slog.Logger)                                   {}
func (*standard) has(string) bool                                     { return true }
func (*standard) shows(string) bool                                   { return true }
func (*standard) sender(c *hub.Conn, _ *hub.Channel, _ string) string { return c.UserID() }
func (*standard) trying() time.Duration                               { return time.Hour }
func (*standard) ends(status int) bool                                { return status == http.StatusGone }

// encode does not use json.Marshal, which would make < six bytes long.
func (*standard) encode(e event) ([]byte, error) { return jsvalue.Encode(e) }

func (*standard) body(at time.Time, items []item) []byte {
	b := make([]byte, 0, sizeOf(items))
	b = append(b, `{"type":"pushy.events","timestamp":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `","data":{"events":[`...)
	b = appendItems(b, items)
	return append(b, `]}}`...)
}

func (f *standard) sign(header http.Header, id string, at time.Time, content []byte) {
	webhooksign.Sign(header, f.keys, id, at, content)
}

// sizeOf returns the size of a body.
func sizeOf(items []item) int {
	size := 100
	for _, it := range items {
		size += len(it.json) + 1
	}
	return size
}

func appendItems(b []byte, items []item) []byte {
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, it.json...)
	}
	return b
}
