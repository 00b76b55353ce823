package pushy_test

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// FuzzTokenV2: a string that nobody has signed opens nothing; signed claims open nothing but what
// they say, whatever else they have; and what an endpoint signs for parts that an attacker has
// chosen opens nothing else.
func FuzzTokenV2(f *testing.F) {
	_, _, vectors := tokenVectors(f)
	for _, v := range vectors {
		if v.Claims != nil {
			f.Add(v.Token, *v.Claims, v.Channel, v.Conn, v.User)
		}
	}
	f.Add("v2...", `{"sub":["private-target"],"user":"victim","iat":1700000000,"exp":1700000060}`, "private-TARGET", "", "victim")
	const (
		target = "private-target"
		connID = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"
		user   = "victim"
	)
	now := time.Unix(1700000000, 0)
	f.Fuzz(func(t *testing.T, raw, claims, channel, conn, name string) {
		srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer srv.Close()
		srv.SetClock(func() time.Time { return now })
		srv.SetConnIDs(func() string { return connID })
		p := connectUser(t, srv, user)
		allowed := func(auth string) bool {
			answer := p.subscribeWith(target, auth, "")
			if answer.Event != "pushy:subscription-success" {
				return false
			}
			p.ask(`{"command":"unsubscribe","data":{"channel":"` + target + `"}}`)
			return true
		}
		require.False(t, allowed(raw), "nobody has signed it")

		if allowed(ownTokenV2(peerKey, claims)) {
			var says struct {
				Sub  []string
				Conn *string
				User *string
				Iat  int64
				Exp  *int64
			}
			require.NoError(t, json.Unmarshal([]byte(claims), &says))
			require.True(t, slices.ContainsFunc(says.Sub, func(s string) bool { return strings.EqualFold(s, target) }), claims)
			require.True(t, says.Conn != nil || says.User != nil, claims)
			require.True(t, says.Conn == nil || *says.Conn == connID, claims)
			require.True(t, says.User == nil || *says.User == user, claims)
			require.True(t, says.Exp == nil || *says.Exp > now.Unix() && *says.Exp <= now.Unix()+24*3600+300, claims)
			require.True(t, says.Conn != nil || says.Exp != nil, claims)
			require.LessOrEqual(t, says.Iat, now.Unix()+300)
		}

		signed, err := pushy.SignToken(peerKey, pushy.Token{
			Channels: []string{channel},
			Conn:     conn,
			User:     name,
		})
		if err == nil && allowed(signed) {
			require.True(t, strings.EqualFold(channel, target))
			require.True(t, conn == connID || conn == "" && name == user)
			require.True(t, name == user || name == "")
		}
	})
}
