package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
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
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// keeping are options with which all channels but those named off… keep events; big keeps
// up to 4 MiB.
func keeping(size int, ttl time.Duration) pushy.Options {
	return pushy.Options{Channel: func(name string) pushy.ChannelOptions {
		if strings.HasPrefix(name, "off") {
			return pushy.ChannelOptions{}
		}
		keep := broker.Keep{
			Size: size,
			TTL:  ttl,
		}
		if name == "big" {
			keep.Bytes = 4 << 20
		}
		return pushy.ChannelOptions{Keep: keep}
	}}
}

// connect2 connects a client that knows version 2 of the protocol.
func connect2(t testing.TB, srv *pushy.Server) *peer {
	t.Helper()
	session, client := inmem.Pipe("websocket")
	srv.Connect2(session)
	p := &peer{t: t, Client: client}
	p.id = p.next().field("socketId")
	return p
}

// past is what a success says about the past.
type past struct {
	Epoch     string
	Offset    uint64
	Recovered *bool
	Reason    string
	Replay    *int
	First     uint64
}

func (f frame) past(t testing.TB) (p past) {
	t.Helper()
	require.Equal(t, "pushy:subscription-success", f.Event, "%s", f)
	require.NoError(t, json.Unmarshal(f.Data, &p))
	return p
}

func (p past) position() broker.Position { return broker.Position{Epoch: p.Epoch, Offset: p.Offset} }

// String is short, for comparisons.
func (p past) String() string {
	s := ""
	if p.Recovered != nil {
		s += fmt.Sprintf("recovered=%v ", *p.Recovered)
	}
	if p.Reason != "" {
		s += p.Reason + " "
	}
	if p.Replay != nil {
		s += fmt.Sprintf("replay=%d ", *p.Replay)
	}
	if p.First > 0 {
		s += fmt.Sprintf("first=%d ", p.First)
	}
	return s + "offset=" + strconv.FormatUint(p.Offset, 10)
}

// enterWith subscribes to a channel with further keys, such as `"rewind":3`.
func (p *peer) enterWith(channel, keys string) past {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q%s}}`, channel, keys))
	return p.next().past(p.t)
}

// resume subscribes with a position.
func (p *peer) resume(channel string, since broker.Position, keys string) past {
	p.t.Helper()
	return p.enterWith(channel, fmt.Sprintf(`,"since":{"epoch":%q,"offset":%d}%s`, since.Epoch, since.Offset, keys))
}

// events reads the events from first to last, whose data is their offset.
func (p *peer) events(channel string, first, last uint64) {
	p.t.Helper()
	for i := first; i <= last; i++ {
		text, err := p.Receive(p.t.Context())
		require.NoError(p.t, err)
		require.Equal(p.t, fmt.Sprintf(`{"event":"n","channel":%q,"data":%d,"offset":%d}`, channel, i, i), text)
	}
}

// publishNumbers publishes events whose data is their offset.
func publishNumbers(t testing.TB, srv *pushy.Server, channel string, first, last uint64) {
	t.Helper()
	for i := first; i <= last; i++ {
		receipt, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: channel, Name: "n", Data: i})
		require.NoError(t, err)
		require.Equal(t, i, receipt.Position.Offset)
	}
}

// onKeeping runs a test in its own time on a Server that keeps events: alone, and as a node
// of a cluster.
func onKeeping(t *testing.T, size int, ttl time.Duration, run func(t *testing.T, srv *pushy.Server)) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		fakeTime(t, func(t *testing.T) { run(t, startServer(t, keeping(size, ttl))) })
	})
	t.Run("node", func(t *testing.T) {
		fakeTime(t, func(t *testing.T) { run(t, startOn(t, newCluster().Broker(), keeping(size, ttl))) })
	})
}

// A client that drops before its first event is sent that event when it comes back.
func TestResumeBeforeTheFirstEvent(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		place := p.enterWith("news", "")
		assert.Equal(t, "offset=0", place.String())
		assert.True(t, broker.ValidEpoch(place.Epoch))
		p.Abort()
		publishNumbers(t, srv, "news", 1, 1)
		p = connect2(t, srv)
		assert.Equal(t, "recovered=true replay=1 offset=1", p.resume("news", place.position(), "").String())
		p.events("news", 1, 1)
		publishNumbers(t, srv, "news", 2, 2)
		p.events("news", 2, 2)
		p.quiet()
	})
}

// A channel without events for ten times the TTL has lost nothing.
func TestResumeAfterIdleTime(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		stays := connect2(t, srv)
		stays.enterWith("news", "")
		publishNumbers(t, srv, "news", 1, 5)
		stays.events("news", 1, 5)
		p := connect2(t, srv)
		place := p.enterWith("news", "")
		time.Sleep(10 * time.Minute)
		p.Abort()
		stays.quiet()
		assert.Equal(t, "recovered=true replay=0 offset=5", connect2(t, srv).resume("news", place.position(), "").String())
		before := broker.Position{Epoch: place.Epoch, Offset: 4}
		assert.Equal(t, "recovered=false expired replay=0 first=6 offset=5", connect2(t, srv).resume("news", before, "").String())
	})
}

// A client that lacks exactly the events that are kept is sent all of them.
func TestResumeAtTheEdge(t *testing.T) {
	onKeeping(t, 10, time.Minute, func(t *testing.T, srv *pushy.Server) {
		for _, channel := range []string{"new", "open"} {
			if channel == "open" {
				connect2(t, srv).enterWith(channel, "")
			}
			publishNumbers(t, srv, channel, 1, 25)
			top, err := srv.Position(t.Context(), channel)
			require.NoError(t, err)
			at := func(offset uint64) broker.Position { return broker.Position{Epoch: top.Epoch, Offset: offset} }
			p := connect2(t, srv)
			assert.Equal(t, "recovered=true replay=10 offset=25", p.resume(channel, at(15), "").String())
			p.events(channel, 16, 25)
			p.quiet()
			p = connect2(t, srv)
			assert.Equal(t, "recovered=false trimmed replay=0 first=16 offset=25", p.resume(channel, at(14), "").String())
			p.quiet()
			p = connect2(t, srv)
			assert.Equal(t, "recovered=false trimmed replay=10 first=16 offset=25",
				p.resume(channel, at(14), `,"partial":true`).String())
			p.events(channel, 16, 25)
			p = connect2(t, srv)
			assert.Equal(t, "recovered=false trimmed replay=3 first=16 offset=25",
				p.resume(channel, at(1), `,"partial":true,"rewind":3`).String())
			p.events(channel, 23, 25)
			p.quiet()
		}
	})
}

// Resuming twice repeats nothing.
func TestResumeTwice(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		place := p.enterWith("news", "").position()
		publishNumbers(t, srv, "news", 1, 3)
		p.Abort()
		for _, replay := range []string{"replay=3", "replay=0", "replay=0"} {
			p = connect2(t, srv)
			got := p.resume("news", place, "")
			assert.Equal(t, "recovered=true "+replay+" offset=3", got.String())
			if place.Offset == 0 {
				p.events("news", 1, 3)
			}
			p.quiet()
			place = got.position()
			p.Abort()
		}
	})
}

// Positions that a client made up never cause a replay of other events.
func TestResumeFromForgedPositions(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 3)
		top, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		for since, want := range map[string]string{
			`{"epoch":"","offset":1}`:                                     "recovered=false epoch replay=0 first=1 offset=3",
			`{"epoch":"other","offset":1}`:                                "recovered=false epoch replay=0 first=1 offset=3",
			`{"epoch":"` + top.Epoch + `","offset":4}`:                    "recovered=false ahead replay=0 first=1 offset=3",
			`{"epoch":"` + top.Epoch + `","offset":9007199254740991}`:     "recovered=false ahead replay=0 first=1 offset=3",
			`{"epoch":"` + strings.Repeat("x", 64) + `","offset":0}`:      "recovered=false epoch replay=0 first=1 offset=3",
			`{"epoch":"\u0000\"'; DROP TABLE","offset":9007199254740991}`: "recovered=false epoch replay=0 first=1 offset=3",
			`{"epoch":"` + top.Epoch + `","offset":3}`:                    "recovered=true replay=0 offset=3",
			`{"epoch":"` + strings.ToLower(top.Epoch) + `x","offset":3}`:  "recovered=false epoch replay=0 first=1 offset=3",
		} {
			p := connect2(t, srv)
			got := p.enterWith("news", `,"since":`+since)
			if got.First == 0 { // the ring of a channel that was opened just now is not read for this
				want = strings.Replace(want, "first=1 ", "", 1)
			}
			assert.Equal(t, want, got.String(), since)
			p.quiet()
			p.Abort()
		}
		// A log that has no events is not the one that the client knows: its events were lost.
		p := connect2(t, srv)
		empty := p.enterWith("empty", "")
		assert.Equal(t, "offset=0", empty.String())
		p.Abort()
		p = connect2(t, srv)
		got := p.resume("empty", broker.Position{Epoch: empty.Epoch, Offset: 3}, `,"partial":true`)
		assert.Equal(t, "recovered=false epoch replay=0 first=1 offset=0", got.String())
		assert.Equal(t, empty.Epoch, got.Epoch)
		p.Abort()
		for _, since := range []string{
			`{"epoch":"x","offset":"1"}`, `{"epoch":"x","offset":-1}`, `{"epoch":"x","offset":9007199254740992}`,
			`{"epoch":"x","offset":1.5}`, `{"epoch":"x"}`, `{"offset":1}`, `"x.1"`, `null`,
		} {
			p := connect2(t, srv)
			f := p.ask(`{"command":"subscribe","data":{"channel":"news","since":` + since + `}}`)
			assert.Equal(t, "pushy:error", f.Event, since)
			assert.Equal(t, "400", f.field("code"), since)
			p.quiet()
		}
	})
}

// The publisher of an event is not sent it, also not in a replay after a reconnect.
func TestReplayRespectsExcept(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		place := p.enterWith("news", "").position()
		p.Abort()
		for i := range 3 {
			e := pushy.Event{Channel: "news", Name: "n", Data: i + 1}
			if i == 1 {
				e.Except = []string{p.id}
			}
			_, err := srv.PublishEvent(t.Context(), e)
			require.NoError(t, err)
		}
		with := connect2(t, srv)
		assert.Equal(t, "recovered=true replay=2 offset=3", with.resume("news", place, `,"was":["`+p.id+`"]`).String())
		with.events("news", 1, 1)
		with.events("news", 3, 3)
		with.quiet()
		without := connect2(t, srv)
		assert.Equal(t, "recovered=true replay=3 offset=3", without.resume("news", place, "").String())
		without.events("news", 1, 3)
	})
}

// A page that was rendered at a position is sent exactly the events since then.
func TestResumeFromARenderedPosition(t *testing.T) {
	onKeeping(t, 100, time.Minute, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 7)
		rendered, err := srv.Position(t.Context(), "News")
		require.NoError(t, err)
		publishNumbers(t, srv, "news", 8, 12)
		since, err := broker.ParsePosition(rendered.String())
		require.NoError(t, err)
		p := connect2(t, srv)
		assert.Equal(t, "recovered=true replay=5 offset=12", p.resume("news", since, "").String())
		p.events("news", 8, 12)
		p.quiet()
	})
}

// Rewind sends the newest events, limited by number and age.
func TestRewind(t *testing.T) {
	onKeeping(t, 600, time.Hour, func(t *testing.T, srv *pushy.Server) {
		p := connectPeer(t, srv)
		assert.Equal(t, "replay=0 offset=0", p.enterWith("empty", `,"rewind":20`).String())
		p.quiet()
		publishNumbers(t, srv, "news", 1, 400)
		time.Sleep(10 * time.Minute)
		publishNumbers(t, srv, "news", 401, 600)
		for keys, replay := range map[string]uint64{
			`,"rewind":20`: 20,
			`,"rewind":0,"since":{"epoch":"x","offset":1}`: 0,
			`,"rewind":500`:                         500,
			`,"rewind":{"seconds":60}`:              200,
			`,"rewind":{"events":30,"seconds":60}`:  30,
			`,"rewind":{"events":450,"seconds":60}`: 200,
		} {
			p := connectPeer(t, srv)
			got := p.enterWith("news", keys)
			require.Equal(t, int(replay), *got.Replay, keys)
			assert.Equal(t, uint64(600), got.Offset)
			p.events("news", 601-replay, 600)
			p.quiet()
			p.Abort()
		}
		f := p.ask(`{"command":"subscribe","data":{"channel":"news","rewind":501}}`)
		assert.Equal(t, "rewind: must be from 0 to 500", f.field("message"))
	})
}

// A replay is limited by number and bytes; the client stays connected.
func TestReplayIsBounded(t *testing.T) {
	onKeeping(t, 2000, time.Hour, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		place := p.enterWith("many", "").position()
		big := p.enterWith("big", "").position()
		publishNumbers(t, srv, "many", 1, 501)
		p.events("many", 1, 501)
		for range 32 {
			_, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: "big", Name: "n", Data: strings.Repeat("x", 64<<10)})
			require.NoError(t, err)
			p.next()
		}
		p.Abort()
		p = connect2(t, srv)
		assert.Contains(t, p.resume("many", place, "").String(), "recovered=false large replay=0 ")
		p.send(`{"command":"unsubscribe","data":{"channel":"many"}}`)
		p.next()
		place.Offset++
		assert.Contains(t, p.resume("many", place, "").String(), "recovered=true replay=500 ")
		p.events("many", 2, 501)
		got := p.resume("big", big, "")
		assert.Contains(t, got.String(), "recovered=false large replay=0 ")
		p.send(`{"command":"unsubscribe","data":{"channel":"big"}}`)
		p.next()
		big.Offset = 29
		assert.Contains(t, p.resume("big", big, "").String(), "recovered=true replay=3 ")
		for range 3 {
			assert.Equal(t, "n", p.next().Event)
		}
		p.quiet()
	})
}

// The answers in channels without history, and of an authorizer that refuses the past.
func TestNoHistory(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		o := keeping(10, time.Minute)
		var asked []bool
		o.Authorizer = authorizerFunc(func(_ context.Context, r pushy.AuthRequest) error {
			asked = append(asked, r.Since)
			if r.Channel == "closed" {
				return pushy.ErrNoHistory
			}
			return nil
		})
		srv := startServer(t, o)
		p := connect2(t, srv)
		none := broker.Position{Epoch: "x"}
		assert.Equal(t, "recovered=false off replay=0 offset=0", p.resume("off", none, "").String())
		f := p.ask(`{"command":"pushy:history","data":{"channel":"off"},"id":1}`)
		assert.Equal(t, `pushy:error {"message":"The channel keeps no events","code":"404","id":1}`, f.String())
		publishNumbers(t, srv, "closed", 1, 3)
		assert.Equal(t, "recovered=false denied replay=0 offset=3", p.resume("closed", none, `,"rewind":3`).String())
		f = p.ask(`{"command":"pushy:history","data":{"channel":"closed"},"id":1}`)
		assert.Equal(t, `pushy:error {"message":"Past events are not allowed","code":"403","id":1}`, f.String())
		assert.Equal(t, "offset=0", p.enterWith("news", "").String())
		assert.Equal(t, []bool{true, true, false}, asked)
		_, err := srv.Position(t.Context(), "off")
		assert.ErrorIs(t, err, pushy.ErrNotKept)
		_, err = srv.History(t.Context(), "off", pushy.HistoryOptions{})
		assert.ErrorIs(t, err, pushy.ErrNotKept)
		assert.ErrorIs(t, srv.Forget(t.Context(), "off"), pushy.ErrNotKept)
	})
}

// Clients that know nothing of positions receive the bytes of before, and the offset.
func TestOldClientsOnKeptChannels(t *testing.T) {
	onKeeping(t, 10, time.Minute, func(t *testing.T, srv *pushy.Server) {
		p := connectPeer(t, srv)
		p.send(`{"command":"subscribe","data":{"channel":"news"},"id":7}`)
		f := p.next()
		assert.Regexp(t, `^\{"channel":"news","memberId":"[0-9a-f]{32}","id":7\}$`, string(f.Data))
		publishNumbers(t, srv, "news", 1, 1)
		p.events("news", 1, 1)
		p.send(`{"command":"subscribe","data":{"channel":"off"}}`)
		p.next()
		require.NoError(t, srv.Publish(t.Context(), "off", "n", 1))
		text, err := p.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `{"event":"n","channel":"off","data":1}`, text)
	})
}

// The history can be paged in both directions, by clients and by the host.
func TestHistoryPages(t *testing.T) {
	onKeeping(t, 100, time.Hour, func(t *testing.T, srv *pushy.Server) {
		publishNumbers(t, srv, "news", 1, 20)
		p := connectPeer(t, srv)
		f := p.ask(`{"command":"pushy:history","data":{"channel":"news"},"id":1}`)
		assert.Equal(t, `pushy:error {"message":"Not subscribed to this channel","code":"403","id":1}`, f.String())
		p.subscribe("news", "")
		offsets := func(data string) string {
			f := p.ask(`{"command":"pushy:history","data":{"channel":"news"` + data + `},"id":"h"}`)
			require.Equal(t, "pushy:reply", f.Event, "%s", f)
			var reply struct {
				ID   string
				Data struct {
					Epoch  string
					Events []struct {
						Event        string
						Data, Offset int
						Time         int64
					}
					More bool
				}
			}
			require.NoError(t, json.Unmarshal(f.Data, &reply))
			assert.True(t, broker.ValidEpoch(reply.Data.Epoch))
			list := ""
			for _, e := range reply.Data.Events {
				assert.Equal(t, e.Data, e.Offset)
				assert.Equal(t, "n", e.Event)
				assert.WithinDuration(t, time.Now(), time.UnixMilli(e.Time), time.Second)
				list += strconv.Itoa(e.Offset) + " "
			}
			return fmt.Sprintf("%smore=%v", list, reply.Data.More)
		}
		assert.Equal(t, "18 19 20 more=true", offsets(`,"limit":3`))
		assert.Equal(t, "15 16 17 more=true", offsets(`,"before":18,"limit":3`))
		assert.Equal(t, "1 2 more=false", offsets(`,"before":3`))
		assert.Equal(t, "more=false", offsets(`,"before":1`))
		assert.Equal(t, "1 2 more=true", offsets(`,"after":0,"limit":2`))
		assert.Equal(t, "19 20 more=false", offsets(`,"after":18`))
		for data, message := range map[string]string{
			`,"before":0`:           "before: must be from 1 to 2^53-1",
			`,"before":2,"after":1`: "after: must not be combined with before",
			`,"limit":501`:          "limit: must be from 1 to 500",
			`,"limit":"9"`:          "limit: must be a number, not a string",
			`,"more":1`:             "more: unknown field",
		} {
			f := p.ask(`{"command":"pushy:history","data":{"channel":"news"` + data + `},"id":1}`)
			assert.Equal(t, "400", f.field("code"), data)
			assert.Equal(t, message, f.field("message"), data)
		}
		page, err := srv.History(t.Context(), "NEWS", pushy.HistoryOptions{Before: 4, Limit: 2})
		require.NoError(t, err)
		require.Len(t, page.Events, 2)
		assert.Equal(t, uint64(2), page.Events[0].Position.Offset)
		assert.Equal(t, "2", string(page.Events[0].Data))
		assert.Equal(t, uint64(20), page.Top.Offset)
		assert.True(t, page.More)
	})
}

// The trigger's answer has the position of a kept event, also when it is repeated.
func TestTriggerAnswersWithThePosition(t *testing.T) {
	t.Parallel()
	srv := triggerServer(t, keeping(10, time.Hour))
	for i, c := range []struct{ channel, id, want string }{
		{"news", "", `"position":"%s.1"`},
		{"news", "again", `"position":"%s.2"`},
		{"news", "again", `"position":"%s.2"`},
		{"off", "", ""},
	} {
		key, err := pushy.SignTrigger(peerKey, c.channel, "n", triggerNow, []byte("{}"))
		require.NoError(t, err)
		url := fmt.Sprintf("/pushy/channel/%s/trigger?event=n&timestamp=%d&auth_key=%s&id=%s", c.channel, triggerNow, key, c.id)
		r := httptest.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		want := `{"status":{"code":200,"message":"Ok"}`
		if c.want != "" {
			top, err := srv.Position(t.Context(), "news")
			require.NoError(t, err)
			want += "," + fmt.Sprintf(c.want, top.Epoch)
		}
		assert.Equal(t, want+"}", w.Body.String(), i)
	}
}

// Forget begins a new history: members are told, and nobody is sent what was forgotten.
func TestForget(t *testing.T) {
	onKeeping(t, 100, time.Hour, func(t *testing.T, srv *pushy.Server) {
		p := connect2(t, srv)
		place := p.enterWith("news", "").position()
		publishNumbers(t, srv, "news", 1, 3)
		p.events("news", 1, 3)
		require.NoError(t, srv.Forget(t.Context(), "news"))
		now, err := srv.Position(t.Context(), "news")
		require.NoError(t, err)
		assert.NotEqual(t, place.Epoch, now.Epoch)
		p.expect(`pushy:resync news {"reason":"epoch","epoch":"` + now.Epoch + `","offset":0}`)
		publishNumbers(t, srv, "news", 1, 1)
		p.events("news", 1, 1)
		back := connect2(t, srv)
		assert.Equal(t, "recovered=false epoch replay=0 first=1 offset=1", back.resume("news", place, "").String())
		again := connect2(t, srv)
		assert.Equal(t, "recovered=false epoch replay=1 first=1 offset=1", again.resume("news", place, `,"rewind":9`).String())
		again.events("news", 1, 1)
	})
}

// Events of kept channels cannot be ones that may be omitted, nor too large.
func TestPublishToKeptChannels(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := cluster.Broker()
		srv := startOn(t, b, keeping(10, time.Minute))
		for _, e := range []pushy.Event{
			{Channel: "news", Name: "n", Latest: "x"},
			{Channel: "news", Name: "n", Droppable: true},
		} {
			_, err := srv.PublishEvent(t.Context(), e)
			assert.ErrorContains(t, err, "cannot be Latest or Droppable")
			e.Channel = "off"
			_, err = srv.PublishEvent(t.Context(), e)
			assert.NoError(t, err)
		}
		_, err := srv.PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "n", Data: strings.Repeat("x", 256<<10)})
		assert.ErrorIs(t, err, broker.ErrTooLarge)
		p := connect2(t, srv)
		p.enterWith("news", "")
		reconnect := b.Cut()
		_, err = srv.PublishEvent(t.Context(), pushy.Event{Channel: "news", Name: "n"})
		assert.ErrorIs(t, err, broker.ErrAway, "a kept channel does not fork")
		p.quiet()
		reconnect()
		p.quiet()
	})
}

// New refuses limits with which a kept event could not be sent to a client.
func TestKeptLimits(t *testing.T) {
	t.Parallel()
	for _, l := range []pushy.Limits{{TriggerBytes: 512 << 10}, {ConnBuffer: 256 << 10}, {KeepBytes: 1000}} {
		o := keeping(10, time.Minute)
		o.SecretKey = peerKey
		o.Limits = l
		_, err := pushy.New(o)
		assert.ErrorContains(t, err, "Limits.TriggerBytes", "%+v", l)
		o.Channel = nil
		srv, err := pushy.New(o)
		require.NoError(t, err)
		require.NoError(t, srv.Close())
	}
}

// A node that is cut off misses events; when it is back its members get them, in order,
// without a notice.
func TestNodeCatchesUp(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := cluster.Broker()
		srv := startOn(t, b, keeping(100, time.Hour))
		other := startOn(t, cluster.Broker(), keeping(100, time.Hour))
		p := connect2(t, srv)
		place := p.enterWith("news", "").position()
		p.enterWith("off", "")
		publishNumbers(t, other, "news", 1, 3)
		p.events("news", 1, 3)
		reconnect := b.Cut()
		publishNumbers(t, other, "news", 4, 9)
		moved := connect2(t, other)
		place.Offset = 9
		assert.Equal(t, "recovered=true replay=0 offset=9", moved.resume("news", place, "").String())
		p.quiet()
		reconnect()
		synctest.Wait()
		publishNumbers(t, other, "news", 10, 10)
		p.expect(`pushy:resync off {}`)
		p.events("news", 4, 10)
		p.quiet()
	})
}

// While the Broker is away a channel can be opened, without a history; when it is back the
// members are told the place.
func TestOpenedWhileAway(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		cluster := newCluster()
		b := cluster.Broker()
		srv := startOn(t, b, keeping(100, time.Hour))
		other := startOn(t, cluster.Broker(), keeping(100, time.Hour))
		publishNumbers(t, other, "news", 1, 3)
		top, err := other.Position(t.Context(), "news")
		require.NoError(t, err)
		reconnect := b.Cut()
		p := connect2(t, srv)
		got := p.resume("news", top, "")
		assert.Equal(t, "recovered=false unavailable replay=0 offset=0", got.String())
		assert.NotEqual(t, top.Epoch, got.Epoch)
		assert.NotEmpty(t, got.Epoch)
		assert.Equal(t, "replay=0 offset=0", strings.Replace(connect2(t, srv).enterWith("news", `,"rewind":3`).String(), "unavailable ", "", 1))
		publishNumbers(t, other, "news", 4, 4)
		reconnect()
		p.expect(`pushy:resync news {"reason":"unavailable","epoch":"` + top.Epoch + `","offset":4}`)
		publishNumbers(t, other, "news", 5, 5)
		p.events("news", 5, 5)
		p.quiet()
		again := connect2(t, srv)
		assert.Equal(t, "recovered=true replay=2 offset=5", again.resume("news", top, "").String())
		again.events("news", 4, 5)
	})
}
