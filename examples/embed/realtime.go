package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/gopushy/pushy"
)

// addRealtime adds pushy to the app. Users who are logged in can connect, each team has a
// private channel, and every change is published there.
func (a *app) addRealtime(secret string) (*pushy.Server, error) {
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
	// The login decides here, too: only members of a team can enter its channel.
	a.mux.Handle("/rt/auth", rt.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		s := a.sessions.of(r)
		if s == nil || channel != channelOf(s.user.Team) {
			return nil, pushy.ErrDenied
		}
		return map[string]string{"name": s.user.Name}, nil
	}))
	a.changed = func(ctx context.Context, team string, c chore) {
		if err := rt.Publish(ctx, channelOf(team), "chore", c); err != nil {
			slog.Error("cannot publish", "team", team, "error", err) // the change is saved nevertheless
		}
	}
	// When a user logs out, the connections of all open pages are closed.
	a.sessions.disconnect = func(conn *pushy.Conn) { _ = conn.Close(pushy.CloseRemoved, "logged out") }
	return rt, nil
}

func channelOf(team string) string { return "private-team-" + team }
