package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/gopushy/pushy"
)

// addRealtime is what made the app live: who is logged in may connect, each team has a
// private channel, and what a request changes is published there.
func (a *app) addRealtime(secret string) (*pushy.Server, error) {
	rt, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Prefix:    "/rt",
		// The login decides, once for each connection.
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
	// The login decides here, too: a team's channel is for the team.
	a.mux.Handle("/rt/auth", rt.AuthHandler(func(r *http.Request, _, channel string) (any, error) {
		s := a.sessions.of(r)
		if s == nil || channel != channelOf(s.user.Team) {
			return nil, pushy.ErrDenied
		}
		return map[string]string{"name": s.user.Name}, nil
	}))
	a.changed = func(ctx context.Context, team string, c chore) {
		if err := rt.Publish(ctx, channelOf(team), "chore", c); err != nil {
			slog.Error("cannot publish", "team", team, "error", err) // it is saved all the same
		}
	}
	// Who logs out is out: the pages that are open lose their connections.
	a.sessions.hangUp = func(conn *pushy.Conn) { _ = conn.Close(pushy.CloseRemoved, "logged out") }
	return rt, nil
}

func channelOf(team string) string { return "private-team-" + team }
