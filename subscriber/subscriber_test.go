package subscriber_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/subscriber"
)

func TestEvents(t *testing.T) {
	onNetwork(t, keeping(100), func(t *testing.T, n *network, srv *pushy.Server) {
		c := connect(t, "a", n.options())
		assert.Equal(t, subscriber.Connected, c.State())
		_, found := srv.Conn(c.ConnID())
		assert.True(t, found)
		news := subscribe(t, c, "News", nil)
		room := subscribe(t, c, "private-room", nil)
		off := subscribe(t, c, "off", nil)
		rn, rr, ro := read(t, news), read(t, room), read(t, off)
		publish(t, srv, "news", "n", 1)
		publish(t, srv, "private-room", "n", "two")
		publish(t, srv, "off", "n", nil)
		rn.expect("published news n 1 @1")
		rr.expect(`published private-room n "two" @1`)
		ro.expect("published off n null")
		n.cut()
		synctest.Wait()
		publish(t, srv, "news", "n", 2)
		publish(t, srv, "off", "n", 2)
		time.Sleep(time.Minute)
		rn.expect("published news n 2 @2")
		ro.expect("gap off off")
		publish(t, srv, "news", "n", 3)
		publish(t, srv, "off", "n", 3)
		rn.expect("published news n 3 @3")
		ro.expect("published off n 3")
		require.NoError(t, news.Unsubscribe(t.Context()))
		require.ErrorIs(t, rn.ended(), subscriber.ErrClosed)
		ch, _ := srv.Channels().Lookup("news")
		assert.Nil(t, ch)
		c.Close()
		require.ErrorIs(t, rr.ended(), subscriber.ErrClosed)
		require.ErrorIs(t, ro.ended(), subscriber.ErrClosed)
		assert.Equal(t, subscriber.Closed, c.State())
	})
}
