package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/pusherform"
)

// Pusher returns the format of Pusher Channels, which Pusher's SDKs for servers verify. key and secret
// are those of the application, as in pusher.Options. With it, Options.Secret and OldSecrets must be
// empty, and these are different:
//
//   - The events of Options.Events are called channel_occupied, channel_vacated, member_added,
//     member_removed, client_event and cache_miss. There are none for connections: New refuses
//     ConnectionOpened and ConnectionClosed.
//   - Only channels whose names begin with "presence-" have events of members.
//   - A request that is not accepted is tried for 5 min, whatever the status is.
//   - There is no event for EventsLost: what was lost is logged.
//   - Events have no ids, so a receiver cannot tell that one has arrived again.
func Pusher(key, secret string) Format {
	return Format{&pusher{
		key:    key,
		secret: secret,
	}}
}

const (
	headerKey       = "X-Pusher-Key"
	headerSignature = "X-Pusher-Signature"
)

// pusherNames has the names of the events.
var pusherNames = map[string]string{
	ChannelOccupied: "channel_occupied",
	ChannelVacated:  "channel_vacated",
	MemberJoined:    "member_added",
	MemberLeft:      "member_removed",
	ClientEvent:     "client_event",
	ChannelMiss:     "cache_miss",
}

type pusher struct{ key, secret string }

var errOwnSecret = errors.New("is set, but the secret of Options.Format signs requests in the format of Pusher")

func (f *pusher) check(o *Options, serverKeys []string) error {
	switch {
	case o.Secret != "":
		return fmt.Errorf("Options.Secret %w", errOwnSecret)
	case len(o.OldSecrets) > 0:
		return fmt.Errorf("Options.OldSecrets %w", errOwnSecret)
	case !pusherform.IsPlain(f.key):
		return fmt.Errorf("Options.Format: the key %q does not have 1 to 64 of A-Z a-z 0-9 _ -", f.key)
	case f.secret == "":
		return errors.New("Options.Format: the secret is empty")
	case slices.Contains(serverKeys, f.secret):
		// A receiver has the secret, and with the secret key it could do anything.
		return errors.New("Options.Format: the secret is a secret key of the server: make a secret of its own")
	}
	return nil
}

func (f *pusher) warn(log *slog.Logger) {
	if len(f.secret) < pusherform.MinSecret {
		log.Warn("webhook: the secret of Options.Format is under 16 bytes: it can be guessed")
	}
}

func (*pusher) has(event string) bool     { return pusherNames[event] != "" }
func (*pusher) shows(channel string) bool { return pusherform.IsPresence(channel) }
func (*pusher) trying() time.Duration     { return 5 * time.Minute }
func (*pusher) ends(int) bool             { return false }

// sender returns the user_id of the member, which the other members see.
func (*pusher) sender(c *hub.Conn, ch *hub.Channel, member string) string {
	if !pusherform.IsPresence(ch.Name()) {
		return ""
	}
	if m, ok := ch.Shown(member); ok {
		return pusherform.MemberID(m.User, m.Text, member)
	}
	return pusherform.MemberID(c.UserID(), nil, member) // it has left
}

func (*pusher) encode(e event) ([]byte, error) {
	name := pusherNames[e.Event]
	if name == "" {
		return nil, nil
	}
	o := jsvalue.Object(nil).Text("name", name).Text("channel", e.Channel)
	switch e.Event {
	case MemberJoined, MemberLeft:
		o = o.Text("user_id", pusherform.MemberID(e.User, e.Member, e.MemberID))
	case ClientEvent:
		o = o.Text("event", e.Name).
			Raw("data", jsvalue.AppendQuote(nil, pusherform.Content(e.Data))).
			Text("socket_id", e.Connection)
		if e.User != "" {
			o = o.Text("user_id", e.User)
		}
	}
	return o, nil
}

func (*pusher) body(at time.Time, items []item) []byte {
	b := make([]byte, 0, sizeOf(items))
	b = append(b, `{"time_ms":`...)
	b = strconv.AppendInt(b, at.UnixMilli(), 10)
	b = append(b, `,"events":[`...)
	b = appendItems(b, items)
	return append(b, `]}`...)
}

func (f *pusher) sign(header http.Header, _ string, _ time.Time, content []byte) {
	header.Set(headerKey, f.key)
	header.Set(headerSignature, pusherform.Sign(f.secret, content))
}
