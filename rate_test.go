package pushy_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// opener opens SockJS sessions, each of which is a new connection.
type opener struct {
	srv      *pushy.Server
	sessions int
}

func (o *opener) open(remote string, header ...string) *httptest.ResponseRecorder {
	o.sessions++
	r := httptest.NewRequest("POST", "/pushy/socket/0/s"+strconv.Itoa(o.sessions)+"/xhr", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	o.srv.ServeHTTP(able{w}, r)
	return w
}

func TestConnectRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		accepted := 0
		srv, err := pushy.New(pushy.Options{
			SecretKey: peerKey,
			Logger:    log,
			Limits:    pushy.Limits{ConnectRate: 2, ConnectBurst: 3},
			Accept: func(*http.Request) (any, error) {
				accepted++
				return nil, nil
			},
		})
		require.NoError(t, err)
		defer srv.Close()
		o := &opener{srv: srv}
		for range 3 {
			assert.Equal(t, 200, o.open("192.0.2.1:5").Code)
		}
		for _, forged := range []string{"X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"} {
			w := o.open("192.0.2.1:6", forged, "198.51.100.7")
			assert.Equal(t, 429, w.Code, forged)
			assert.Equal(t, "1", w.Header().Get("Retry-After"))
			assert.Contains(t, w.Body.String(), `"code":"429"`)
			assert.Contains(t, w.Body.String(), "Options.Limits.ConnectRate is 2 a second")
		}
		assert.Equal(t, 3, accepted, "the host's code is not called for the others")
		assert.Equal(t, uint64(5), srv.Stats().Refused["connectRate"])
		assert.Equal(t, 3, srv.Stats().Connections)
		assert.Equal(t, 1, strings.Count(strings.Join(lines(), "\n"), "too many new connections of one address"))
		for i := range 3 { // all of a /64 are one address
			assert.Equal(t, 200, o.open(fmt.Sprintf("[2001:db8::%d]:5", i)).Code)
		}
		assert.Equal(t, 429, o.open("[2001:db8::9]:5").Code)
		assert.Equal(t, 200, o.open("[2001:db8:0:1::9]:5").Code)
		time.Sleep(time.Second)
		assert.Equal(t, 200, o.open("192.0.2.1:5").Code)
		assert.Equal(t, 200, o.open("192.0.2.1:5").Code)
		assert.Equal(t, 429, o.open("192.0.2.1:5").Code)
	})
}

func TestConnectRateDefaults(t *testing.T) {
	t.Parallel()
	realIP := func(r *http.Request) string { return r.Header.Get("X-Real-IP") }
	for _, c := range []struct {
		name    string
		address func(*http.Request) string
		limits  pushy.Limits
		allowed int
	}{
		{"off without Address", nil, pushy.Limits{}, 100},
		{"on with Address", realIP, pushy.Limits{}, 50},
		{"turned off", realIP, pushy.Limits{ConnectRate: -1}, 100},
		{"burst turned off", realIP, pushy.Limits{ConnectBurst: -1}, 100},
		{"burst of the rate", realIP, pushy.Limits{ConnectRate: 70}, 70},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv, err := pushy.New(pushy.Options{
					SecretKey: peerKey,
					Logger:    slog.New(slog.DiscardHandler),
					Address:   c.address,
					Limits:    c.limits,
				})
				require.NoError(t, err)
				defer srv.Close()
				o := &opener{srv: srv}
				allowed := 0
				for range 100 {
					if o.open("10.0.0.1:1", "X-Real-IP", "192.0.2.1").Code == 200 {
						allowed++
					}
				}
				assert.Equal(t, c.allowed, allowed)
			})
		})
	}
}

// Decision 30: a Server behind a proxy that does not know it says so, once.
func TestMostConnectionsFromOnePrivateAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		remote func(i int) string
		lines  int
	}{
		{"proxy", func(i int) string {
			if i%4 == 0 {
				return fmt.Sprintf("198.51.100.%d:1", i%250)
			}
			return "10.0.0.1:5"
		}, 1},
		{"public", func(int) string { return "198.51.100.1:5" }, 0},
		{"many", func(i int) string { return fmt.Sprintf("10.0.0.%d:5", i%200) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log, lines := logged()
				srv, err := pushy.New(pushy.Options{SecretKey: peerKey, Logger: log})
				require.NoError(t, err)
				defer srv.Close()
				o := &opener{srv: srv}
				for i := range 2000 {
					require.Equal(t, 200, o.open(c.remote(i)).Code)
				}
				all := strings.Join(lines(), "\n")
				assert.Equal(t, c.lines, strings.Count(all, "most connections come from one private address"), all)
			})
		})
	}
}

func TestPublishRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		srv, err := pushy.New(pushy.Options{
			SecretKey: peerKey,
			Logger:    log,
			Limits:    pushy.Limits{PublishRate: 2},
		})
		require.NoError(t, err)
		defer srv.Close()
		trigger := func() *httptest.ResponseRecorder {
			now := time.Now().Unix()
			stamp := strconv.FormatInt(now, 10)
			key, err := pushy.SignTrigger(peerKey, "room", "news", now, []byte("{}"))
			require.NoError(t, err)
			r := httptest.NewRequest("POST", "/pushy/channel/room/trigger?event=news&timestamp="+stamp+"&auth_key="+key,
				strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			srv.ServeHTTP(able{w}, r)
			return w
		}
		for range 4 {
			require.Equal(t, 200, trigger().Code)
		}
		w := trigger()
		require.Equal(t, 429, w.Code)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		assert.JSONEq(t, `{"error":{"code":"429","message":"Too many events"}}`, w.Body.String())
		assert.Contains(t, strings.Join(lines(), "\n"), "Options.Limits.PublishRate, which is 2 events a second")
		for range 100 {
			require.NoError(t, srv.Publish(t.Context(), "room", "news", 1), "the host is not limited")
		}
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 200, trigger().Code)
		require.Equal(t, 429, trigger().Code)
	})
}
