package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/names"
)

const (
	askRemove = "console:remove"

	maxBody       = 512 << 10
	maxReason     = 123 // bytes, as a close frame can have
	defaultReason = "Removed"
)

// outcome is the answer to an action.
type outcome struct {
	Done   int      `json:"done"` // connections or memberships that were ended, or events that were published
	Nodes  int      `json:"nodeCount"`
	Silent []string `json:"silent,omitempty"`
	Error  string   `json:"error,omitempty"`
}

func (o *outcome) covered(nodes int, silent []string, err error) {
	o.Nodes = nodes
	o.Silent = silent[:min(len(silent), maxNodes)]
	if err != nil {
		o.Error = short(err.Error(), 300)
	}
}

// action is the handler of an action: it is refused if the console is read-only, or if a page of
// another origin has sent the request.
func (c *console) action(name string, run func(w http.ResponseWriter, r *http.Request, who string)) route {
	return route{http.MethodPost, func(w http.ResponseWriter, r *http.Request, who string) {
		if c.options.ReadOnly {
			c.log.LogAttrs(r.Context(), slog.LevelWarn, "console: action refused, the console is read-only",
				slog.String("who", who), slog.String("action", name))
			httperror.Write(w, http.StatusForbidden, "the console is read-only")
			return
		}
		run(w, r, who)
	}}
}

// body decodes the JSON of a request, whose fields must be those of the action.
func (c *console) body(w http.ResponseWriter, r *http.Request, into any) bool {
	// A form cannot send this type, and a fetch of another origin only if the server allows it.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		httperror.Write(w, http.StatusUnsupportedMediaType, "the Content-Type must be application/json")
		return false
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		httperror.Write(w, http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the body is over the limit of %d bytes", over.Limit))
		return false
	}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err = decoder.Decode(into); err == nil && decoder.More() {
			err = errors.New("there is more than one value")
		}
	}
	if err != nil {
		httperror.Write(w, http.StatusBadRequest, "the body is not the JSON of this action: "+short(err.Error(), 200))
		return false
	}
	return true
}

// act logs an action, whatever its outcome, and writes the answer.
func (c *console) act(w http.ResponseWriter, r *http.Request, who, action string, o outcome, attrs ...slog.Attr) {
	attrs = append([]slog.Attr{slog.String("who", who), slog.String("action", action)}, attrs...)
	attrs = append(attrs, slog.Int("done", o.Done), slog.Int("nodes", o.Nodes))
	if len(o.Silent) > 0 {
		attrs = append(attrs, slog.Any("silent", o.Silent))
	}
	level := slog.LevelInfo
	if o.Error != "" {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", o.Error))
	}
	c.log.LogAttrs(r.Context(), level, "console: action", attrs...)
	if o.Nodes == 0 && o.Error != "" {
		httperror.Write(w, http.StatusBadRequest, o.Error)
		return
	}
	answer(w, o)
}

// kick closes a connection, or all of a user, on all nodes.
func (c *console) kick(w http.ResponseWriter, r *http.Request, who string) {
	var b struct {
		Target string `json:"target"` // "conn:…" or "user:…"
		Reason string `json:"reason"`
	}
	if !c.body(w, r, &b) {
		return
	}
	if !strings.HasPrefix(b.Target, "conn:") && !strings.HasPrefix(b.Target, "user:") {
		httperror.Write(w, http.StatusBadRequest, `target: must begin with "conn:" or "user:"`)
		return
	}
	kicked, err := c.srv.Kick(r.Context(), pushy.Kick{
		Target: b.Target,
		Reason: b.Reason,
	})
	o := outcome{Done: kicked.Closed}
	o.covered(kicked.Nodes, kicked.Silent, err)
	c.act(w, r, who, "kick", o, slog.String("target", b.Target), slog.String("reason", b.Reason))
}

// removal is the body of remove, and the data of askRemove.
type removal struct {
	Conn    string `json:"conn"`
	Channel string `json:"channel"`
	Reason  string `json:"reason"`
}

func (m *removal) check() error {
	lower, err := names.Channel(m.Channel)
	m.Channel = lower
	m.Reason = cmp.Or(m.Reason, defaultReason)
	switch {
	case err != nil:
		return fmt.Errorf("channel: %w", err)
	case !validID(m.Conn):
		return errors.New("conn: is not the id of a connection")
	case len(m.Reason) > maxReason || !utf8.ValidString(m.Reason):
		return fmt.Errorf("reason: must be valid UTF-8 of at most %d bytes", maxReason)
	}
	return nil
}

// remove ends the membership of a connection in a channel, on whatever node it is.
func (c *console) remove(w http.ResponseWriter, r *http.Request, who string) {
	var m removal
	if !c.body(w, r, &m) {
		return
	}
	if err := m.check(); err != nil {
		httperror.Write(w, http.StatusBadRequest, err.Error())
		return
	}
	answers, err := c.srv.Ask(r.Context(), askRemove, m)
	o := outcome{}
	o.covered(0, answers.Silent, err)
	for _, a := range answers.Answers {
		var removed bool
		if a.Err != "" || json.Unmarshal(a.Data, &removed) != nil {
			o.Error = short(fmt.Sprintf("node %s: %s", a.Node, cmp.Or(a.Err, "its answer has another form")), 300)
			continue
		}
		o.Nodes++
		if removed {
			o.Done++
		}
	}
	c.act(w, r, who, "remove", o,
		slog.String("conn", m.Conn), slog.String("channel", m.Channel), slog.String("reason", m.Reason))
}

// answerRemove reports whether it has ended the membership.
func (a *agent) answerRemove(_ context.Context, data json.RawMessage) (any, error) {
	var m removal
	if json.Unmarshal(data, &m) != nil || m.check() != nil {
		return nil, errInvalid
	}
	conn, here := a.srv.Conn(m.Conn)
	if !here {
		return false, nil
	}
	ch, here := a.srv.Channels().Lookup(m.Channel)
	return here && ch.Remove(conn, m.Reason) == nil, nil
}

// publish publishes an event to a channel.
func (c *console) publish(w http.ResponseWriter, r *http.Request, who string) {
	var b struct {
		Channel string          `json:"channel"`
		Event   string          `json:"event"`
		Data    json.RawMessage `json:"data"`
	}
	if !c.body(w, r, &b) {
		return
	}
	if b.Data == nil {
		httperror.Write(w, http.StatusBadRequest, "data: is missing")
		return
	}
	o := outcome{
		Done:  1,
		Nodes: 1,
	}
	if err := c.srv.Publish(r.Context(), b.Channel, b.Event, b.Data); err != nil {
		o = outcome{Error: short(err.Error(), 300)}
	}
	c.act(w, r, who, "publish", o,
		slog.String("channel", b.Channel), slog.String("event", b.Event), slog.Int("bytes", len(b.Data)))
}
