package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// table is an arena whose squares are assigned in order, and what tests need to play in it.
type table struct {
	*arena
	kit     *pushytest.Kit
	handler http.Handler
}

func newTable(t *testing.T) table {
	a, err := newArena("a secret for the tests of the game")
	require.NoError(t, err)
	a.board.random = func(int) int { return 0 } // the first square that is free
	handler, err := a.handler()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.srv.Close()) })
	return table{a, pushytest.New(t, a.srv), handler}
}

func as(key, name string) func(*http.Request) {
	return func(r *http.Request) { r.URL.RawQuery = url.Values{"key": {key}, "name": {name}}.Encode() }
}

// sit connects a player and subscribes to the arena, as the page does. The client receives
// the success before the Subscribe hook runs, so sit waits for the hook.
func (tb table) sit(name string) (*pushytest.Client, pushytest.Subscribed) {
	who := as(name+"-with-a-long-key", name)
	c := tb.kit.Connect(who)
	in := c.Subscribe(room, pushytest.Endpoint(tb.handler, "/auth", who))
	synctest.Wait()
	return c, in
}

func at(x, y int) spot { return spot{x, y} }

// play runs a game in its own time.
func play(t *testing.T, game func(t *testing.T, tb table)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { game(t, newTable(t)) })
}

func TestMovesAreSeenByAll(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		ada, _ := tb.sit("Ada")
		grace, in := tb.sit("Grace")
		require.Len(t, in.Presence, 2)
		var v view
		require.NoError(t, grace.Exec("look", nil, &v))
		// Squares are dealt from the left: Ada, six gems, Grace.
		assert.Equal(t, []spot{at(0, 0), at(7, 0)}, []spot{v.Players[0].spot, v.Players[1].spot})
		assert.Equal(t, []spot{at(1, 0), at(2, 0), at(3, 0), at(4, 0), at(5, 0), at(6, 0)}, v.Gems)
		for _, c := range []*pushytest.Client{ada, grace} {
			for c.ExpectEvent(room, "board", &v); v.Turn < 2; c.ExpectEvent(room, "board", &v) {
				continue // of those who came
			}
		}

		var got moveReply
		require.NoError(t, ada.Exec("move", map[string]string{"to": "right"}, &got))
		assert.Equal(t, moveReply{at(1, 0), 1}, got)
		for _, c := range []*pushytest.Client{ada, grace} {
			c.ExpectEvent(room, "board", &v)
			assert.Equal(t, at(1, 0), v.Players[0].spot)
			assert.Equal(t, 1, v.Players[0].Score)
			assert.Contains(t, v.Gems, at(0, 0), "a gem for the one that is gone")
			c.ExpectNone(room, "board")
		}
	})
}

func TestMovesAreRefused(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		outside := tb.kit.Connect(as("outside-with-a-key", "Eve"))
		ada, _ := tb.sit("Ada")
		_, _ = tb.sit("Grace")
		to := func(direction any) map[string]any { return map[string]any{"to": direction} }
		for _, c := range []struct {
			name   string
			who    *pushytest.Client
			data   any
			code   string
			says   string
			moving bool
		}{
			{"outside", outside, to("right"), "outside", "not in the arena", false},
			{"wall", ada, to("left"), "no-way", "", false},
			{"noDirection", ada, map[string]any{}, "no-move", "", false},
			{"noData", ada, nil, "no-move", "", false},
			{"diagonal", ada, to("north-west"), "400", "to: is not valid", false},
			{"number", ada, to(1), "400", "to: must be a string, not a number", false},
			{"cheat", ada, map[string]any{"to": "right", "score": 9}, "400", "score: unknown field", false},
			{"first", ada, to("down"), "", "", true},
			{"tooFast", ada, to("down"), "too-fast", "", false},
		} {
			err := c.who.Exec("move", c.data, nil)
			if c.moving {
				require.NoError(t, err, c.name)
				continue
			}
			var refused *pushy.Error
			require.ErrorAs(t, err, &refused, c.name)
			assert.Equal(t, c.code, refused.Code, c.name)
			assert.Contains(t, refused.Message, c.says, c.name)
		}
		time.Sleep(pace)
		require.NoError(t, ada.Exec("move", to("down"), nil))
	})
}

func TestTenGemsWin(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		ada, _ := tb.sit("Ada")
		grace, _ := tb.sit("Grace")
		var id string
		tb.mu.Lock()
		tb.board.players[0].Score = goal - 1
		tb.board.players[1].Score = 3
		id = tb.board.players[0].ID
		tb.mu.Unlock()
		var got moveReply
		require.NoError(t, ada.Exec("move", map[string]string{"to": "right"}, &got))
		var v view
		for v.Winner == "" {
			grace.ExpectEvent(room, "board", &v)
		}
		assert.Equal(t, id, v.Winner)
		assert.Len(t, v.Gems, spare)
		for _, p := range v.Players {
			assert.Zero(t, p.Score)
		}
		assert.Zero(t, got.Score)
	})
}

func TestPlayersComeAndGo(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		ada, _ := tb.sit("Ada")
		second, _ := tb.sit("Ada") // before the server has seen that the first is lost
		watcher, _ := tb.sit("Grace")
		look := func() (v view) {
			require.NoError(t, watcher.Exec("look", nil, &v))
			return v
		}
		assert.Len(t, look().Players, 2)
		require.NoError(t, second.Exec("move", map[string]string{"to": "right"}, nil))
		ada.Drop()
		assert.Len(t, look().Players, 2)
		second.Drop()
		watcher.ExpectEvent(room, "pushy:presence-quit", nil)
		assert.Len(t, look().Players, 1)

		tb.sit("Ada")
		assert.Equal(t, 1, look().Players[1].Score, "a player who returns in time keeps the score")
		tb.kit.Connect(as("Ada-with-a-long-key", "Ada")).Drop()
	})
	t.Run("later", func(t *testing.T) {
		play(t, func(t *testing.T, tb table) {
			ada, _ := tb.sit("Ada")
			require.NoError(t, ada.Exec("move", map[string]string{"to": "right"}, nil))
			ada.Drop()
			time.Sleep(absence + time.Second)
			again, _ := tb.sit("Ada")
			var v view
			require.NoError(t, again.Exec("look", nil, &v))
			assert.Zero(t, v.Players[0].Score)
		})
	})
}

func TestArenaIsFull(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		for i := range maxPlayers {
			tb.sit("Ada" + string(rune('a'+i)))
		}
		who := as("one-too-many-for-this", "Eve")
		_, err := tb.kit.Connect(who).TrySubscribe(room, pushytest.Endpoint(tb.handler, "/auth", who))
		require.ErrorContains(t, err, "Channel is full")
	})
}

func TestWhoMayConnect(t *testing.T) {
	play(t, func(t *testing.T, tb table) {
		for _, bad := range [][2]string{
			{"", "Ada"}, {"short", "Ada"}, {"with a blank in the key", "Ada"}, {"a-key-of-some-length", ""}, {"a-key-of-some-length", " "},
			{"a-key-of-some-length", strings.Repeat("a", 17)}, {"a-key-of-some-length", "a\u202eb"}, {"a-key-of-some-length", "a\xff"},
		} {
			assert.Equal(t, http.StatusForbidden, tb.kit.Refused(as(bad[0], bad[1])), bad)
		}
		ada, _ := tb.sit("Ada")
		who := as("Ada-with-a-long-key", "Ada")
		_, err := ada.TrySubscribe("private-other", pushytest.Endpoint(tb.handler, "/auth", who))
		require.ErrorContains(t, err, "403")
	})
}

// The page has the types of the events from this package.
func TestTypesOfThePage(t *testing.T) {
	t.Parallel()
	args := []string{"run", "../../cmd/pushy-types", "-check", "-type", "face,moveReply", "-o", "web/events.d.ts", "."}
	out, err := exec.Command("go", args...).CombinedOutput()
	assert.NoError(t, err, "%s: run go generate ./examples/game", out)
	source, err := os.ReadFile("arena.go")
	require.NoError(t, err)
	generate := strings.Join(slices.DeleteFunc(args, func(arg string) bool { return arg == "-check" }), " ")
	assert.Contains(t, string(source), "//go:generate go "+generate+"\n")
}

// The program itself, once.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", in) }()
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	base := strings.TrimSuffix(strings.TrimPrefix(said, "open "), "/\n")
	for path, kind := range map[string]string{
		"/": "text/html", "/game.js": "text/javascript", "/style.css": "text/css", "/pushy/pushy.js": "text/javascript",
	} {
		resp, err := http.Get(base + path)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		assert.Contains(t, resp.Header.Get("Content-Type"), kind, path)
		assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "script-src 'self'", path)
		require.NoError(t, resp.Body.Close())
	}
	assert.ErrorContains(t, run(ctx, strings.TrimPrefix(base, "http://"), io.Discard), "-addr")
	cancel()
	assert.NoError(t, <-ended)
}
