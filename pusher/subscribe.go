package pusher

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/pusherform"
)

// Statuses of pusher:subscription_error.
const (
	statusUnauthorized = 401
	statusForbidden    = 403
	statusTooLarge     = 413
	statusLimit        = 4004
)

// subscription is the data of pusher:subscribe.
type subscription struct {
	channel string
	auth    string
	data    *string // channel_data, or nil
}

// parseSubscription returns the place of a value that has a wrong type, or "".
func parseSubscription(data []byte) (s subscription, invalid string) {
	err := fieldsOf(data, func(name string, value []byte) {
		if name != "channel" && name != "auth" && name != "channel_data" || string(value) == "null" {
			return
		}
		text, is := jsvalue.Text(value)
		if !is {
			invalid = name
			return
		}
		switch name {
		case "channel":
			s.channel = text
		case "auth":
			s.auth = text
		case "channel_data":
			s.data = &text
		}
	})
	if err != nil {
		return s, "data"
	}
	return s, invalid
}

// subscribe handles pusher:subscribe.
func (p *protocol) subscribe(c *hub.Conn, m *message) {
	s, invalid := parseSubscription(m.data)
	switch {
	case invalid == "data":
		p.fail(c, 0, "data must be an object, or a string that contains one", "")
	case s.channel == "":
		p.fail(c, 0, "data.channel must be a string", "")
	case invalid != "":
		refuse(c, s.channel, typeAuth, statusUnauthorized, invalid+" must be a string")
	case strings.HasPrefix(s.channel, toUser):
		p.subscribeToUser(c, s.channel)
	default:
		p.join(c, &s)
	}
}

// subscribeToUser answers a subscription to the events for the user of the connection. There is no
// such channel: the client receives what is sent to the user.
func (p *protocol) subscribeToUser(c *hub.Conn, channel string) {
	state := stateOf(c)
	user := channel[len(toUser):]
	if state.userData == "" || user != c.UserID() {
		refuse(c, channel, typeAuth, statusUnauthorized, "the connection is not signed in as this user")
		return
	}
	reply(c, eventSubscribed, channel, []byte("{}"))
	state.toUser = user
	c.Attach(state)
}

// join makes the connection a member of a channel.
func (p *protocol) join(c *hub.Conn, s *subscription) {
	err := p.checkChannel(s.channel)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		c.Close(codeUnavailable, "the name of the channel could not be checked")
		return
	case err != nil:
		refuse(c, s.channel, typeAuth, statusForbidden, "the channel "+err.Error())
		return
	}
	policy, err := c.Hub().PolicyOf(s.channel)
	if err != nil {
		c.Close(codeUnavailable, "the properties of the channel are not known")
		return
	}
	r := hub.JoinRequest{
		Channel:  s.channel,
		Auth:     s.auth,
		Presence: hub.Presence{Mode: hub.PresenceNone},
	}
	if refused := p.claim(c, s, &r, policy); refused != "" {
		refuse(c, s.channel, typeAuth, statusUnauthorized, refused)
		return
	}
	if pusherform.IsPresence(s.channel) {
		if !showsUsers(policy) {
			p.parts.Notices.Warn("pusher: a presence channel does not show users as members", s.channel)
			refuse(c, s.channel, typeAuth, statusForbidden, "the channel has no presence")
			return
		}
		r.Presence.Mode = hub.PresenceJoins
		r.Hold = true
	}
	if isCache(s.channel) {
		r.Past.Rewind.Events = 1
	}
	p.answer(c, &r, joinPatiently(c, r))
}

// claim verifies the credential of a subscription, if there is one, and sets what it says. It returns
// why the client is refused, or "".
func (p *protocol) claim(c *hub.Conn, s *subscription, r *hub.JoinRequest, policy hub.Policy) (refused string) {
	if s.auth != "" && !p.credential(s.auth, channelText(c.ID(), s.channel, s.data)) {
		p.parts.Notices.Warn("pusher: a signature was refused", "",
			slog.String("channel", httperror.Shown(s.channel)),
			slog.String("conn", c.ID()),
			slog.String("hint", "the auth endpoint must sign with the secret of pusher.Options, for this connection and channel"))
		return "the signature is not valid: it must be that of " + channelText("{socket_id}", s.channel, shownData(s.data))
	}
	var claims *hub.Claims
	if s.auth != "" {
		claims = &hub.Claims{Channel: s.channel}
		r.Claims = claims
	}
	if !pusherform.IsPresence(s.channel) || !policy.Private {
		return ""
	}
	member := channelData{user: c.UserID()}
	switch data := stateOf(c).userData; {
	case claims != nil && s.data != nil: // without a signature, the client could name any user
		parsed, err := parseChannelData(*s.data)
		if err != nil {
			return err.Error()
		}
		if most := p.parts.PresenceBytes; most > 0 && len(*s.data) > most {
			return "channel_data is too large"
		}
		member = parsed
	case data != "":
		member.info = infoOf(data)
	case claims == nil && s.auth == "" && member.user == "":
		return "the channel needs a signature and channel_data"
	case member.user == "":
		return "the channel needs channel_data"
	}
	r.User = member.user
	r.Data = member.member()
	if claims != nil {
		claims.User = member.user
		claims.Data = r.Data
	}
	return ""
}

// shownData stands for channel_data in a message.
func shownData(data *string) *string {
	if data == nil {
		return nil
	}
	shown := "{channel_data}"
	return &shown
}

const (
	// patience is how long a subscription is tried again, because clients do not do that.
	patience  = 10 * time.Second
	firstWait = 50 * time.Millisecond
	longWait  = time.Second
)

// joinPatiently joins a channel, and tries again after errors that can pass.
func joinPatiently(c *hub.Conn, r hub.JoinRequest) error {
	deadline := time.Now().Add(patience)
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		err := c.Join(r)
		var unavailable *hub.UnavailableError
		if !errors.As(err, &unavailable) && !errors.Is(err, hub.ErrTooManyJoins) || time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.Context().Done():
			timer.Stop()
			return hub.ErrClosed
		}
	}
}

// answer answers a subscription that was not successful.
func (p *protocol) answer(c *hub.Conn, r *hub.JoinRequest, err error) {
	var refused *hub.RefusedError
	switch {
	case err == nil, errors.Is(err, hub.ErrClosed):
	case errors.Is(err, hub.ErrAlreadyMember):
		_ = c.Repeat(r.Channel) // it fails only if the membership has ended
	case errors.Is(err, hub.ErrTooManyChannels), errors.Is(err, hub.ErrChannelFull):
		refuse(c, r.Channel, typeLimit, statusLimit, err.Error())
	case errors.Is(err, hub.ErrDataTooLarge):
		refuse(c, r.Channel, typeAuth, statusTooLarge, "channel_data is too large")
	case errors.As(err, &refused):
		status := statusForbidden
		reason := refused.Reason
		if refused.NeedAuth {
			status = statusUnauthorized
			if reason == "" {
				reason = "the channel needs a signature"
			}
		}
		refuse(c, r.Channel, typeAuth, status, reason)
	case errors.Is(err, hub.ErrNeedAuth):
		refuse(c, r.Channel, typeAuth, statusUnauthorized, "the channel needs a signature")
	case errors.Is(err, hub.ErrDenied):
		refuse(c, r.Channel, typeAuth, statusForbidden, "invalid credentials")
	default:
		c.Close(codeUnavailable, "the channel is temporarily unavailable")
	}
}

// ownRequest marks the end of a membership that the client has asked for.
var ownRequest = []byte("0")

// unsubscribe handles pusher:unsubscribe, which has no answer.
func (p *protocol) unsubscribe(c *hub.Conn, m *message) {
	s, _ := parseSubscription(m.data)
	if s.channel == "" {
		p.fail(c, 0, "data.channel must be a string", "")
		return
	}
	if state := stateOf(c); state.toUser != "" && s.channel == toUser+state.toUser {
		state.toUser = ""
		c.Attach(state)
		return
	}
	_ = c.Leave(s.channel, "", ownRequest) // it fails only if the client is not in the channel
}
