package redis_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/redistest"
	"github.com/gopushy/pushy/internal/testlog"
)

// An answer of Redis never ends the process. A server that runs a script for long refuses
// UNSUBSCRIBE, and whatever else comes; the node is away until the script is over, and
// then follows what it followed.
func TestBusyServer(t *testing.T) {
	t.Parallel()
	s := ownServer(t, "--lua-time-limit", "50")
	a := open(t, options(t, s))
	a.follow("news")
	a.follow("other")
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		_, _ = s.Command("EVAL", "while true do end", "0")
	}()
	require.Eventually(t, func() bool {
		answer, err := s.Command("PING")
		return err == nil && strings.HasPrefix(answer, "-BUSY")
	}, patience, tick)
	_ = a.Unfollow(bounded(t), "other") // whatever it returns
	a.gone()
	require.Eventually(t, func() bool {
		err := a.Away()
		return err != nil && strings.Contains(err.Error(), "BUSY")
	}, patience, tick)
	set(t, s, "SCRIPT", "KILL")
	<-busy
	a.back()
	a.append("news", event("said"))
	a.wait("news", "said")
}

// A server that cannot save its data refuses to write, and PING. Events that are not kept
// go on, and all else fails with its error.
func TestServerThatCannotSave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := ownServer(t, "--save", "3600 1", "--dir", dir)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dump.rdb"), 0o700)) // where its file would be
	o, log := options(t, s), &testlog.Log{}
	o.Logger = log.Logger()
	a := open(t, o)
	a.follow("news")
	set(t, s, "BGSAVE")
	require.Eventually(t, func() bool {
		answer, err := s.Command("PING")
		return err == nil && strings.HasPrefix(answer, "-MISCONF")
	}, patience, tick)
	for i := range 3 {
		word := fmt.Sprint(i)
		a.append("news", event(word))
		a.wait("news", word)
	}
	for _, e := range []broker.Entry{join("1"), kept("no")} {
		_, err := a.Append(bounded(t), "news", e)
		assert.ErrorContains(t, err, "MISCONF")
	}
	assert.NoError(t, a.Unfollow(bounded(t), "news"))
	require.NoError(t, a.Away())
	assert.LessOrEqual(t, len(log.With("level=WARN")), 3, log)
}

// A server that answers like one in another state, to any command that a node sends:
// nothing ends the process, the log has few lines, and the node is back when the answers
// are right again.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"PUBLISH", "EVALSHA", "EVAL", "SUBSCRIBE", "UNSUBSCRIBE", "INFO", "PING"} {
		for _, answer := range []string{
			"READONLY You can't write against a read only replica.",
			"LOADING Redis is loading the dataset in memory",
			"MASTERDOWN Link with MASTER is down",
			"CLUSTERDOWN The cluster is down",
			"TRYAGAIN Multiple keys request during rehashing of slot",
			"NOAUTH Authentication required.",
			"WRONGPASS invalid username-password pair or user is disabled.",
			"NOPERM this user has no permissions",
			"OOM command not allowed when used memory > 'maxmemory'.",
			"MISCONF Redis is configured to save RDB snapshots",
			"BUSY Redis is busy running a script.",
			"NOREPLICAS Not enough good replicas to write.",
			"ERR unknown",
		} {
			code, _, _ := strings.Cut(answer, " ")
			t.Run(command+" "+code, func(t *testing.T) {
				t.Parallel()
				r, err := redistest.NewRefuser(server.Addr)
				require.NoError(t, err)
				t.Cleanup(r.Close)
				o, log := options(t), &testlog.Log{}
				o.Addresses, o.Logger = []string{r.Addr}, log.Logger()
				a := open(t, o)
				a.follow("news")
				r.Refuse(command, answer)
				for range 10 {
					_, _ = a.Append(bounded(t), "news", event("lost"))
					_, _ = a.Append(bounded(t), "news", kept("lost"))
					_, _ = a.Append(bounded(t), "news", join("1"))
					_, _ = a.Follow(bounded(t), "other")
					_ = a.Unfollow(bounded(t), "other")
				}
				r.Refuse(command, "")
				a.back()
				require.Eventually(t, func() bool {
					_, err := a.Append(bounded(t), "news", event("said"))
					return err == nil
				}, patience, tick)
				a.wait("news", "said")
				require.Eventually(t, func() bool {
					_, err := a.Append(bounded(t), "news", join("2"))
					return err == nil
				}, patience, tick)
				assert.LessOrEqual(t, len(log.With("level=")), 10, log)
			})
		}
	}
}

// A node that connects but cannot join begins without Redis, and says so.
func TestBeginsWithoutJoining(t *testing.T) {
	t.Parallel()
	r, err := redistest.NewRefuser(server.Addr)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	o, log := options(t), &testlog.Log{}
	o.Addresses, o.Logger, o.RequireAtStart, o.Timeout = []string{r.Addr}, log.Logger(), false, 2*time.Second
	r.Refuse("SUBSCRIBE", "LOADING Redis is loading the dataset in memory")
	a := open(t, o)
	require.ErrorIs(t, a.Away(), broker.ErrAway)
	assert.Len(t, log.With("level=WARN", "redis is away", "LOADING"), 1, log)
	r.Refuse("SUBSCRIBE", "")
	a.back()
	assert.Len(t, log.With("redis is connected"), 1, log)
}

// What is not refused arrives byte for byte, however it is split.
func TestReplies(t *testing.T) {
	t.Parallel()
	const (
		before = "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n+OK\r\n-ERR of another connection\r\n"
		pushes = ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n" +
			">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$31\r\n\r\n-MISCONF\r\n-BUSY x\r\n>3\r\n$-1 \n\r\n\r\n" +
			"$-1\r\n_\r\n*2\r\n$0\r\n\r\n:2\r\n-NOPERM cannot run the 'subscribe' command\r\n-MOVED 1 a:1\r\n=5\r\ntxt:x\r\n"
		refused = "-MISCONF Redis is configured\r\n"
		pong    = "+PONG\r\n"
		after   = "+last\r\n"
		end     = "-BUSY Redis is busy\r\n+never\r\n"
	)
	for name, split := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": iotest.OneByteReader,
		"half":  iotest.HalfReader,
		"eof":   iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := redis.Replies(fakeConn{in: split(strings.NewReader(before + pushes + refused + refused + pong + after + end))})
			for part := range strings.SplitSeq("*1\r\n$4\r\nPI|N|G\r\n*1\r\n$4\r\nPING\r|\n", "|") {
				_, err := conn.Write([]byte(part))
				require.NoError(t, err)
			}
			got, err := io.ReadAll(conn)
			assert.EqualError(t, err, "BUSY Redis is busy")
			assert.Equal(t, before+pushes+pong+pong+after, string(got))
			conn = redis.Replies(fakeConn{in: split(strings.NewReader(before + pushes))})
			got, err = io.ReadAll(conn)
			require.NoError(t, err)
			assert.Equal(t, before+pushes, string(got))
			conn = redis.Replies(fakeConn{in: split(io.MultiReader(strings.NewReader(before), iotest.ErrReader(errCut)))})
			got, err = io.ReadAll(conn)
			require.ErrorIs(t, err, errCut)
			assert.Equal(t, before, string(got))
		})
	}
}

var errCut = errors.New("cut")

type fakeConn struct {
	net.Conn
	in io.Reader
}

func (c fakeConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c fakeConn) Write(p []byte) (int, error) { return len(p), nil }

// FuzzReplies: whatever a server sends, and however it is split, one connection passes on
// the same, and what is not of a subscription as it is.
func FuzzReplies(f *testing.F) {
	for _, text := range []string{
		"+OK\r\n$5\r\nhello\r\n",
		">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\n{}\r\n-MISCONF x\r\n+PONG\r\n-BUSY\r\n",
		">1\r\n-NOPERM this user has no permissions to run the 'unsubscribe' command\r\n+PONG\r\n",
		"$9223372036854775807\r\n$-9\r\n=x\r\n\n-\n>",
	} {
		f.Add([]byte(text), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, pings int) {
		if len(text) > 32<<10 {
			return // a line may be too long for Redis
		}
		read := func(in io.Reader) (string, string) {
			conn := redis.Replies(fakeConn{in: in})
			for range min(max(pings, 0), 10) {
				_, err := conn.Write([]byte("*1\r\n$4\r\nPING\r\n"))
				require.NoError(t, err)
			}
			got, err := io.ReadAll(conn)
			if err != nil {
				return string(got), err.Error()
			}
			return string(got), ""
		}
		whole, wholeErr := read(bytes.NewReader(text))
		single, singleErr := read(iotest.OneByteReader(bytes.NewReader(text)))
		require.Equal(t, whole, single)
		require.Equal(t, wholeErr, singleErr)
		if !bytes.ContainsRune(text, '>') && bytes.HasSuffix(text, []byte("\n")) {
			require.Equal(t, string(text), whole)
		}
	})
}
