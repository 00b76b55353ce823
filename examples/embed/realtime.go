package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// addRealtime adds pushy to the app. Users who are logged in can connect, each team has a
// private channel, and every change is published there.
func (a *app) addRealtime(secret string) (*pushy.Server, error) {
	kept := pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: time.Hour}}
	rt, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Prefix:    "/rt",
		// The login decides who can connect, once for each connection.
		Accept: func(r *http.Request) (any, error) {
			if s := a.sessions.of(r); s != nil {
				return s, nil
			}
			return nil, pushy.ErrNeedAuth
		},
		// The changes of the last hour: a page receives those since it was rendered, and those
		// that it misses while it is disconnected.
		Channel: func(string) pushy.ChannelOptions { return kept },
		Hooks: pushy.Hooks{
			Connect: func(conn *pushy.Conn) { a.sessions.connected(conn.User().(*session), conn) },
			Disconnect: func(conn *pushy.Conn, _ int, _ string) {
				a.sessions.disconnected(conn.User().(*session), conn)
			},
		},
	})
	if err != nil {
		return nil, err
	}
	a.mux.Handle("/rt/", rt)
	// The page is rendered with a token for the user, which is valid on all connections of that
	// user. When a server restarts and all pages come back at once, they need no request for it.
	a.token = func(s *session) string {
		token, err := pushy.SignToken(secret, pushy.Token{
			Channels: []string{channelOf(s.user.Team)},
			User:     s.UserID(),
			Expires:  time.Now().Add(tokenLifetime),
			Data:     presence(s),
		})
		if err != nil {
			slog.Error("cannot sign a token", "user", s.user.Name, "error", err) // the page asks for one
		}
		return token
	}
	// A page that is open for longer asks for the next token here. The login decides here, too:
	// only members of a team can enter its channel.
	a.mux.Handle("/rt/auth", rt.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		s := a.sessions.of(r)
		if s == nil || channel != channelOf(s.user.Team) {
			return nil, pushy.ErrDenied
		}
		return presence(s), nil
	}))
	a.changed = func(ctx context.Context, team string, c chore) {
		if err := rt.Publish(ctx, channelOf(team), "chore", c); err != nil {
			slog.Error("cannot publish", "team", team, "error", err) // the change is saved nevertheless
		}
	}
	a.position = func(ctx context.Context, team string) string {
		p, err := rt.Position(ctx, channelOf(team))
		if err != nil {
			slog.Error("cannot read the position", "team", team, "error", err) // the page fetches the chores
			return ""
		}
		return p.String()
	}
	// When a user logs out, the connections of all open pages are closed.
	a.sessions.disconnect = func(conn *pushy.Conn) { _ = conn.Close(pushy.CloseRemoved, "logged out") }
	return rt, nil
}

// tokenLifetime is the life of the token in a page, which survives a logout. Without a session the
// user cannot connect, so the token is of no use then.
const tokenLifetime = time.Hour

// presence is what the other members of the team see of a user.
func presence(s *session) map[string]string { return map[string]string{"name": s.user.Name} }

func channelOf(team string) string { return "private-team-" + team }
