package pushytest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// A subscription is renewed, and ends when it is not.
func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := start(t, pushy.Options{TokenLife: time.Minute})
		kit := pushytest.New(t, srv)
		kit.Patience = time.Hour
		ann := kit.Connect(pushytest.Recovering)
		ann.Subscribe("news")
		in := ann.Subscribe("private-room")
		assert.Equal(t, time.Minute, time.Until(in.ExpiresAt()))
		time.Sleep(50 * time.Second)
		expires, err := ann.Refresh("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
		require.NoError(t, err)
		assert.Equal(t, time.Minute, time.Until(expires))
		_, err = ann.Refresh("private-room", pushytest.Token("wrong", nil))
		var refused *pushy.Error
		require.True(t, errors.As(err, &refused))
		assert.Equal(t, "403", refused.Code)
		began := time.Now()
		ann.ExpectExpired("Private-Room")
		assert.Equal(t, 85*time.Second, time.Since(began))
		assert.Equal(t, []string{"news"}, channelsOf(t, srv, ann))
		assert.Zero(t, kit.Connect().Subscribe("private-room").ExpiresAt())
	})
}

func channelsOf(t *testing.T, srv *pushy.Server, c *pushytest.Client) []string {
	t.Helper()
	conn, ok := srv.Conn(c.ID())
	require.True(t, ok)
	return conn.Channels()
}
