package sse_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/sse"
)

// byUser lets users into the private channels of their names.
type byUser struct{ any bool }

func (b byUser) Authorize(_ context.Context, r pushy.AuthRequest) error {
	switch {
	case b.any, !r.Private, r.Channel == "private-"+r.Conn.UserID():
		return nil
	case r.Conn.UserID() == "":
		return pushy.ErrNeedAuth
	}
	return pushy.ErrDenied
}

func sign(t *testing.T, token pushy.Token) string {
	t.Helper()
	signed, err := pushy.SignToken(secret, token)
	require.NoError(t, err)
	return signed
}

// S9: tokens of version 2, in the header and in the URL.
func TestTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{
			Accept: func(r *http.Request) (any, error) { return r.Header.Get("X-User"), nil },
		}, sse.Options{}, nil)
		ann := header("X-User", "ann")
		soon := time.Now().Add(5 * time.Minute)
		short := sign(t, pushy.Token{Channels: []string{"private-a"}, User: "ann", Expires: soon})
		long := sign(t, pushy.Token{Channels: []string{"private-a"}, User: "ann"})
		bearer := func(token string) edit { return header("Authorization", "bearer "+token) }
		for name, c := range map[string]struct {
			query  string
			edits  []edit
			status int
			text   string
		}{
			"header":                 {"channel=private-a", []edit{ann, bearer(long)}, 200, ""},
			"URL":                    {"channel=private-a&auth=" + short, []edit{ann}, 200, ""},
			"header before URL":      {"channel=private-a&auth=x", []edit{ann, bearer(short)}, 200, ""},
			"with a public channel":  {"channel=private-a&channel=b&auth=" + short, []edit{ann}, 200, ""},
			"no token":               {"channel=private-a", []edit{ann}, 401, "channel private-a: authentication needed"},
			"long in the URL":        {"channel=private-a&auth=" + long, []edit{ann}, 400, "10m0s"},
			"other user":             {"channel=private-a&auth=" + short, nil, 403, "channel private-a: "},
			"other channel":          {"channel=private-b&auth=" + short, []edit{ann}, 403, "channel private-b: "},
			"one of two":             {"channel=private-a&channel=private-b&auth=" + short, []edit{ann}, 403, "private-b"},
			"forged":                 {"channel=private-a&auth=" + short + "x", []edit{ann}, 403, "private-a"},
			"forged, public channel": {"channel=b&auth=" + short + "x", []edit{ann}, 403, "channel b: "},
			"Basic":                  {"channel=private-a", []edit{ann, header("Authorization", "Basic eDp5")}, 401, ""},
		} {
			if c.status == http.StatusOK {
				st := s.listen(c.query, c.edits...)
				require.NoError(t, s.srv.Publish(t.Context(), "private-a", "x", name))
				assert.Equal(t, name, st.next().data)
				st.close()
				continue
			}
			res, body := s.refused(c.query, c.edits...)
			plain(t, res, body, c.status, c.text)
		}
		for _, token := range []string{short, long} {
			assert.Empty(t, s.lines.With(token), "a token in the log")
			assert.Empty(t, s.lines.With(token[20:60]), "a part of a token in the log")
		}
		assert.NotEmpty(t, s.lines.With("a token was refused"))
	})
}

// Where Options.Accept does not say who the users are, as in pushy-server, a token says it: the stream is a
// connection of its user.
func TestTokensWithoutAccept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{}, sse.Options{}, nil)
		token := func(user string, life time.Duration, channels ...string) string {
			return sign(t, pushy.Token{
				Channels: channels,
				User:     user,
				Expires:  time.Now().Add(life),
			})
		}
		conn := sign(t, pushy.Token{
			Channels: []string{"private-a"},
			Conn:     "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8",
			User:     "ann",
			Expires:  time.Now().Add(time.Minute),
		})
		bearer := func(token string) []edit { return []edit{header("Authorization", "Bearer "+token)} }
		ann := token("ann", 5*time.Minute, "private-a")
		hour := token("ann", time.Hour, "private-a", "private-b")
		_, err := s.srv.Kick(t.Context(), pushy.Kick{
			Target: "user:eve",
			Reason: "Spam",
			Until:  time.Now().Add(time.Hour),
		})
		require.NoError(t, err)
		for name, c := range map[string]struct {
			query  string
			edits  []edit
			status int
			text   string
		}{
			"URL":                    {"channel=private-a&auth=" + ann, nil, 200, ""},
			"header":                 {"channel=private-a&channel=private-b&channel=c", bearer(hour), 200, ""},
			"header before URL":      {"channel=private-a&auth=x", bearer(hour), 200, ""},
			"no token":               {"channel=private-a", nil, 401, "channel private-a: authentication needed"},
			"other channel":          {"channel=private-b&auth=" + ann, nil, 403, "channel private-b: "},
			"one of two":             {"channel=private-a&channel=private-b&auth=" + ann, nil, 403, "private-b"},
			"forged":                 {"channel=private-a&auth=" + ann + "x", nil, 403, "private-a"},
			"another key":            {"channel=private-a", bearer("v2.AAAAAAAA" + ann[11:]), 403, "private-a"},
			"an hour in the URL":     {"channel=private-a&auth=" + hour, nil, 400, "10m0s"},
			"over an hour":           {"channel=private-a", bearer(token("ann", time.Hour+time.Second, "private-a")), 400, "1h0m0s"},
			"for a connection":       {"channel=private-a", bearer(conn), 403, "private-a"},
			"banned":                 {"channel=private-a", bearer(token("eve", time.Minute, "private-a")), 403, "Spam"},
			"banned, public channel": {"channel=c", bearer(token("eve", time.Minute, "private-a")), 403, "Spam"},
			"version 1":              {"channel=private-a&auth=" + strings.Repeat("a", 64), nil, 400, "version 2"},
		} {
			if c.status == http.StatusOK {
				st := s.listen(c.query, c.edits...)
				require.NoError(t, s.srv.Publish(t.Context(), "private-a", "x", name))
				assert.Equal(t, name, st.next().data)
				conn, ok := s.srv.Conn(st.opened().SocketID)
				require.True(t, ok)
				assert.Equal(t, "ann", conn.UserID())
				st.close()
				continue
			}
			res, body := s.refused(c.query, c.edits...)
			plain(t, res, body, c.status, c.text)
		}
		st := s.listen("channel=private-a&auth=" + ann)
		_, err = s.srv.SendUser(t.Context(), "ann", "note", "hello")
		require.NoError(t, err)
		assert.Equal(t, event{"note", "hello", "-", -1}, st.next())
		_, err = s.srv.Kick(t.Context(), pushy.Kick{Target: "user:ann", Reason: "Bye"})
		require.NoError(t, err)
		assert.Equal(t, `{"channel":null,"reason":"Bye"}`, st.next().data)
		assert.Empty(t, s.lines.With(ann[20:60]), "a part of a token in the log")
		pause(6 * time.Minute)
		res, body := s.refused("channel=private-a&auth=" + ann)
		plain(t, res, body, http.StatusUnauthorized, "expired")
	})
}

// S9: a token that expires ends the stream 25 s later, and the next request is refused.
func TestTokenExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := start(t, pushy.Options{
			Accept:    func(*http.Request) (any, error) { return "ann", nil },
			Heartbeat: -1, // the test reads one stream after the other
		}, sse.Options{}, nil)
		expires := time.Now().Add(time.Minute).Truncate(time.Second)
		token := sign(t, pushy.Token{Channels: []string{"private-a"}, User: "ann", Expires: expires})
		st := s.listen("channel=private-a&auth=" + token)
		both := s.listen("channel=private-a&channel=b&auth=" + token)
		assert.Equal(t, event{"pushy:end", `{"channel":"private-a","reason":"Expired","again":true}`, "-", -1}, st.next())
		late := time.Since(expires)
		assert.GreaterOrEqual(t, late, 25*time.Second)
		assert.LessOrEqual(t, late, 27*time.Second)
		assert.Contains(t, st.next().data, `{"channel":null`)
		st.ends(false)
		res, body := s.refused("channel=private-a&auth=" + token)
		plain(t, res, body, http.StatusUnauthorized, "expired")
		assert.Contains(t, both.next().data, "private-a")
		publish(t, s.srv, "b", 1, 1)
		assert.Equal(t, "1", both.next().data)
	})
}
