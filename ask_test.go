package pushy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
)

// askedNodes starts nodes that share a broker, of which each answers "number" with its
// own, from 0.
func askedNodes(t *testing.T, n int) ([]*pushy.Server, []*memory.Broker) {
	t.Helper()
	cluster := memory.NewCluster(memory.Options{})
	var servers []*pushy.Server
	var brokers []*memory.Broker
	for i := range n {
		b := cluster.Broker()
		srv, err := pushy.New(pushy.Options{
			SecretKey: "0123456789abcdef",
			Broker:    b,
			Logger:    slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = srv.Close() })
		srv.HandleAsk("number", func(context.Context, json.RawMessage) (any, error) { return i, nil })
		servers, brokers = append(servers, srv), append(brokers, b)
	}
	return servers, brokers
}

// numbers are the answers by node, without those that are errors.
func numbers(answers pushy.Answers) map[string]string {
	got := map[string]string{}
	for _, a := range answers.Answers {
		if a.Err == "" {
			got[a.Node] = string(a.Data)
		}
	}
	return got
}

func TestAskAllNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 3)
		want := map[string]string{}
		for i, srv := range servers {
			want[srv.Node()] = strconv.Itoa(i)
		}
		assert.Len(t, want, 3)
		for _, srv := range servers {
			began := time.Now()
			answers, err := srv.Ask(t.Context(), "number", nil)
			require.NoError(t, err)
			assert.Equal(t, want, numbers(answers))
			assert.Equal(t, srv.Node(), answers.Answers[0].Node)
			assert.Empty(t, answers.Silent)
			assert.Zero(t, time.Since(began), "nobody is waited for who has answered")
		}
	})
}

// What is asked is data, and so is what is answered.
func TestAskPassesData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 2)
		for _, srv := range servers {
			srv.HandleAsk("echo", func(_ context.Context, data json.RawMessage) (any, error) {
				if string(data) == `"no"` {
					return nil, errors.New("refused " + strings.Repeat("é", 1000))
				}
				return data, nil
			})
		}
		for _, data := range []any{map[string]any{"a": "<ü>"}, []int{}, 1, nil} {
			answers, err := servers[0].Ask(t.Context(), "echo", data)
			require.NoError(t, err)
			want, err := json.Marshal(data)
			require.NoError(t, err)
			require.Len(t, answers.Answers, 2)
			for _, a := range answers.Answers {
				assert.JSONEq(t, string(want), string(a.Data))
				assert.Empty(t, a.Err)
			}
		}
		answers, err := servers[0].Ask(t.Context(), "echo", "no")
		require.NoError(t, err)
		require.Len(t, answers.Answers, 2)
		for _, a := range answers.Answers {
			assert.Nil(t, a.Data)
			assert.True(t, strings.HasPrefix(a.Err, "refused é"), a.Err)
			assert.LessOrEqual(t, len(a.Err), 1024)
			assert.NotContains(t, a.Err, "\ufffd")
		}
		_, err = servers[0].Ask(t.Context(), "echo", func() {})
		require.Error(t, err)
	})
}

// Nodes that do not answer are named, after the time that they have.
func TestSilentNodesAreNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, brokers := askedNodes(t, 4)
		hang := make(chan struct{})
		for i, srv := range servers {
			srv.HandleAsk("hang", func(context.Context, json.RawMessage) (any, error) {
				if i == 2 {
					<-hang
				}
				return i, nil
			})
		}
		mend := brokers[1].Cut()
		began := time.Now()
		answers, err := servers[0].Ask(t.Context(), "hang", nil)
		require.NoError(t, err)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
		assert.Equal(t, map[string]string{servers[0].Node(): "0", servers[3].Node(): "3"}, numbers(answers))
		assert.ElementsMatch(t, []string{servers[1].Node(), servers[2].Node()}, answers.Silent)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began = time.Now()
		answers, err = servers[0].Ask(ctx, "number", nil)
		require.NoError(t, err)
		assert.Equal(t, 3*time.Second, time.Since(began))
		assert.Equal(t, []string{servers[1].Node()}, answers.Silent)

		// One whose lease has expired is no node any more.
		time.Sleep(time.Minute)
		answers, err = servers[0].Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Len(t, answers.Answers, 3)
		assert.Empty(t, answers.Silent)

		mend()
		synctest.Wait()
		answers, err = servers[0].Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Len(t, answers.Answers, 4)
		close(hang)
	})
}

// A node that was shut down is not asked any more: nobody waits for it, and it is not named
// as silent.
func TestAskAfterAShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 3)
		require.NoError(t, servers[1].Shutdown(t.Context()))
		began := time.Now()
		for _, srv := range []*pushy.Server{servers[0], servers[2]} {
			answers, err := srv.Ask(t.Context(), "number", nil)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{servers[0].Node(): "0", servers[2].Node(): "2"}, numbers(answers))
			assert.Empty(t, answers.Silent)
		}
		assert.Zero(t, time.Since(began))
	})
}

// A node that is cut off has its own answer, and says why there are no more.
func TestAskWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, brokers := askedNodes(t, 2)
		brokers[0].Cut()
		answers, err := servers[0].Ask(t.Context(), "number", nil)
		require.ErrorIs(t, err, broker.ErrAway)
		assert.Equal(t, map[string]string{servers[0].Node(): "0"}, numbers(answers))
		assert.Empty(t, answers.Silent)
	})
}

// A node that was cut off when it started hears questions once it is connected.
func TestAskANodeThatStartedAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		b := &cutAtOpen{Broker: cluster.Broker()}
		late, err := pushy.New(pushy.Options{
			SecretKey: "0123456789abcdef",
			Broker:    b,
			Logger:    slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer func() { _ = late.Close() }()
		srv, err := pushy.New(pushy.Options{
			SecretKey: "0123456789abcdef",
			Broker:    cluster.Broker(),
			Logger:    slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer func() { _ = srv.Close() }()
		b.mend()
		synctest.Wait()
		answers, err := srv.Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Empty(t, answers.Silent)
		require.Len(t, answers.Answers, 2)
		assert.Equal(t, late.Node(), answers.Answers[1].Node)
		assert.Equal(t, "this node has no AskFunc of that name", answers.Answers[1].Err)
	})
}

// cutAtOpen is a broker that is away from when it is opened.
type cutAtOpen struct {
	*memory.Broker
	mend func()
}

func (c *cutAtOpen) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	err := c.Broker.Open(ctx, o, sink)
	c.mend = c.Cut()
	return err
}

// An AskFunc that panics or ends its goroutine costs one answer.
func TestFailingAskFuncs(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(){
		"panic":  func() { panic("no") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				servers, _ := askedNodes(t, 2)
				for _, srv := range servers {
					srv.HandleAsk("fail", func(context.Context, json.RawMessage) (any, error) {
						fail()
						return 1, nil
					})
				}
				answers, err := servers[0].Ask(t.Context(), "fail", nil)
				require.NoError(t, err)
				assert.Empty(t, answers.Silent)
				require.Len(t, answers.Answers, 2)
				for _, a := range answers.Answers {
					assert.Equal(t, "internal error", a.Err)
				}
				answers, err = servers[0].Ask(t.Context(), "number", nil)
				require.NoError(t, err)
				assert.Len(t, numbers(answers), 2)
			})
		})
	}
}

// Without a Broker there is one node.
func TestAskASingleServer(t *testing.T) {
	t.Parallel()
	srv, err := pushy.New(pushy.Options{SecretKey: "0123456789abcdef"})
	require.NoError(t, err)
	srv.HandleAsk("one", func(context.Context, json.RawMessage) (any, error) { return 1, nil })
	answers, err := srv.Ask(t.Context(), "one", nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{srv.Node(): "1"}, numbers(answers))
	for _, name := range []string{"", strings.Repeat("n", 129), "\xff"} {
		_, err = srv.Ask(t.Context(), name, nil)
		require.Error(t, err)
		assert.Panics(t, func() {
			srv.HandleAsk(name, func(context.Context, json.RawMessage) (any, error) { return 1, nil })
		})
	}
	assert.Panics(t, func() { srv.HandleAsk("nil", nil) })
	assert.Panics(t, func() {
		srv.HandleAsk("one", func(context.Context, json.RawMessage) (any, error) { return 2, nil })
	})
	require.NoError(t, srv.Close())
	_, err = srv.Ask(t.Context(), "one", nil)
	require.ErrorIs(t, err, pushy.ErrClosed)
}

// A Shutdown does not wait for the time that a question has.
func TestShutdownEndsQuestions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 2)
		for _, srv := range servers {
			srv.HandleAsk("wait", func(ctx context.Context, _ json.RawMessage) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		asked := make(chan pushy.Answers)
		go func() {
			answers, _ := servers[0].Ask(ctx, "wait", nil)
			asked <- answers
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, servers[1].Shutdown(t.Context()))
		require.NoError(t, servers[0].Shutdown(t.Context()))
		assert.Less(t, time.Since(began), time.Second)
		<-asked
	})
}

// Others may write to the broker. What they write as a question or an answer is skipped
// or bounded, and this node answers as before.
func TestForeignQuestions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		var log bytes.Buffer
		srv, err := pushy.New(pushy.Options{
			SecretKey: "0123456789abcdef",
			Broker:    cluster.Broker(),
			Logger:    slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		var running, most atomic.Int64
		release := make(chan struct{})
		srv.HandleAsk("wait", func(context.Context, json.RawMessage) (any, error) {
			most.Store(max(most.Load(), running.Add(1)))
			<-release
			running.Add(-1)
			return 1, nil
		})
		foreign := cluster.Broker()
		require.NoError(t, foreign.Open(t.Context(), broker.OpenOptions{
			Node:  "foreign",
			Lease: time.Minute,
		}, nowhere{}))
		write := func(event, data string) {
			_, err := foreign.Append(t.Context(), nodesChannel, broker.Entry{
				Kind:  broker.Event,
				Event: event,
				From:  "foreign",
				Data:  json.RawMessage(data),
			})
			require.NoError(t, err)
		}
		for _, data := range []string{
			`1`, `[]`, `null`, `{}`, `{"v":1}`, `{"v":1,"id":7}`, `{"v":1,"id":"a"}`, `{"v":1,"id":"a","ms":-1}`,
			`{"v":2,"id":"a","name":"wait","ms":500}`, `{"v":1,"id":"a","name":"wait","ms":1e99}`,
			`{"v":1,"id":"a","name":"` + strings.Repeat("n", 129) + `","ms":500}`,
		} {
			for _, event := range []string{"ask", "answer", "other"} {
				write(event, data)
			}
		}
		for i := range 1000 {
			write("ask", `{"v":1,"id":"`+strconv.Itoa(i)+`","name":"wait","ms":9223372036854775807}`)
		}
		synctest.Wait()
		assert.EqualValues(t, 64, running.Load())
		close(release)
		synctest.Wait()
		assert.EqualValues(t, 64, most.Load())
		answers, err := srv.Ask(t.Context(), "wait", nil)
		require.NoError(t, err)
		assert.Equal(t, []string{"foreign"}, answers.Silent)
		assert.Equal(t, map[string]string{srv.Node(): "1"}, numbers(answers))
		require.NoError(t, foreign.Close(t.Context()))
		require.NoError(t, srv.Close())
		assert.LessOrEqual(t, strings.Count(log.String(), "level=WARN"), 2, log.String())
		assert.Contains(t, log.String(), "this node already answers 64 questions")
	})
}

// askable starts a Server on a broker; it answers "number" with 7.
func askable(t *testing.T, b broker.Broker) *pushy.Server {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: "0123456789abcdef",
		Broker:    b,
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	srv.HandleAsk("number", func(context.Context, json.RawMessage) (any, error) { return 7, nil })
	return srv
}

// openNode opens a node of which a test writes what it says. Events of the nodes' channel
// go to deliver.
func openNode(t *testing.T, b broker.Broker, id string, deliver func(e broker.Entry)) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	require.NoError(t, b.Open(ctx, broker.OpenOptions{
		Node:  id,
		Lease: time.Minute,
	}, deliverTo(deliver)))
	_, err := b.Follow(ctx, nodesChannel)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close(ctx) })
}

// deliverTo is a sink that passes on what is delivered.
type deliverTo func(e broker.Entry)

func (d deliverTo) Deliver(_ string, e broker.Entry)   { d(e) }
func (d deliverTo) Reset(string, broker.State, string) {}

// say appends an event of the nodes' channel.
func say(b broker.Broker, from, event, data string) error {
	_, err := b.Append(context.Background(), nodesChannel, broker.Entry{
		Kind:  broker.Event,
		Event: event,
		From:  from,
		Data:  json.RawMessage(data),
	})
	return err
}

// A broker that delivers a question before it has been opened harms nothing.
func TestAQuestionWhileTheBrokerIsOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &altered{Broker: memory.New()}
		b.open = func(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
			sink.Deliver(nodesChannel, broker.Entry{
				Kind:  broker.Event,
				Event: "ask",
				From:  "other",
				Data:  json.RawMessage(`{"v":1,"id":"a","name":"number","ms":500}`),
			})
			return b.Broker.Open(ctx, o, sink)
		}
		answers, err := askable(t, b).Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Len(t, numbers(answers), 1)
	})
}

// A node that may not follow the channel cannot receive answers: it says so at once, and
// does not name the others as silent. It asks again when it may.
func TestAskWithoutPermissionToFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		b := &refusedFollow{Broker: cluster.Broker()}
		b.refuse.Store(true)
		srv := askable(t, b)
		askable(t, cluster.Broker())
		began := time.Now()
		answers, err := srv.Ask(t.Context(), "number", nil)
		require.ErrorIs(t, err, errBroker)
		assert.Equal(t, map[string]string{srv.Node(): "7"}, numbers(answers))
		assert.Empty(t, answers.Silent)
		assert.Zero(t, time.Since(began))

		b.refuse.Store(false)
		time.Sleep(time.Minute)
		answers, err = srv.Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Len(t, numbers(answers), 2)
	})
}

// refusedFollow is a broker that can refuse to follow.
type refusedFollow struct {
	*memory.Broker
	refuse atomic.Bool
}

func (r *refusedFollow) Follow(ctx context.Context, channel string) (broker.State, error) {
	if r.refuse.Load() {
		return broker.State{}, errBroker
	}
	return r.Broker.Follow(ctx, channel)
}

// A broker that does not answer before the time is over costs the other nodes' answers
// alone.
func TestAskOverABrokerThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := askable(t, publishing(func(ctx context.Context, _ string, _ broker.Entry) (broker.Appended, error) {
			<-ctx.Done()
			return broker.Appended{}, ctx.Err()
		}))
		answers, err := srv.Ask(t.Context(), "number", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, map[string]string{srv.Node(): "7"}, numbers(answers))
		assert.Empty(t, answers.Silent)
	})
}

// A command or hook that waits for silent nodes does not hold up a Shutdown.
func TestShutdownEndsAsk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		srv := askable(t, cluster.Broker())
		openNode(t, cluster.Broker(), "silent", func(broker.Entry) {})
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		began := time.Now()
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			answers, err := srv.Ask(ctx, "number", nil)
			assert.ErrorIs(t, err, pushy.ErrClosed)
			assert.Equal(t, map[string]string{srv.Node(): "7"}, numbers(answers))
		}()
		synctest.Wait()
		require.NoError(t, srv.Shutdown(t.Context()))
		<-asked
		assert.Less(t, time.Since(began), time.Second)
	})
}

// Whoever can write to the broker can answer. Answers of nodes that do not exist do not
// count, nor do those in the name of the node that asked, and all answers are bounded.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		srv := askable(t, cluster.Broker())
		for _, id := range []string{"big1", "big2", "both", "broken", "error"} {
			openNode(t, cluster.Broker(), id, func(broker.Entry) {})
		}
		forger := cluster.Broker()
		openNode(t, forger, "forger", func(e broker.Entry) {
			if e.Event != "ask" {
				return
			}
			var question struct{ ID string }
			assert.NoError(t, json.Unmarshal(e.Data, &question))
			answer := func(from, rest string) {
				assert.NoError(t, say(forger, from, "answer", `{"v":1,"id":"`+question.ID+`"`+rest+`}`))
			}
			go func() {
				answer(srv.Node(), `,"data":8`)
				for i := range 12_000 {
					answer("none"+strconv.Itoa(i), `,"data":1`)
				}
				answer("broken", ``)
				answer("both", `,"data":1,"error":"no"`)
				answer("error", `,"error":"`+strings.Repeat("é", 1000)+`"`)
				answer("big1", `,"data":"`+strings.Repeat("a", 9<<20)+`"`)
				answer("big2", `,"data":"`+strings.Repeat("b", 9<<20)+`"`)
				answer("forger", `,"data":1`)
				answer("forger", `,"data":2`)
			}()
		})
		answers, err := srv.Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Equal(t, []string{"both", "broken"}, answers.Silent)
		got := map[string]pushy.Answer{}
		for _, a := range answers.Answers {
			got[a.Node] = a
		}
		require.Len(t, got, 5)
		assert.Equal(t, "7", string(got[srv.Node()].Data))
		assert.Equal(t, "1", string(got["forger"].Data))
		assert.Len(t, got["error"].Err, 1024)
		assert.Len(t, got["big1"].Data, 9<<20+2)
		assert.Empty(t, got["big2"].Data)
		assert.Equal(t, "the other nodes' answers have over 16777216 bytes in total", got["big2"].Err)
	})
}

// A context that has ended ends Ask at once, and an AskFunc may ask in its turn.
func TestAskAtTheEdges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		_, _ = servers[0].Ask(ctx, "number", nil)
		assert.Zero(t, time.Since(began))
		for _, srv := range servers {
			srv.HandleAsk("nested", func(ctx context.Context, _ json.RawMessage) (any, error) {
				answers, err := srv.Ask(ctx, "number", nil)
				return len(answers.Answers), err
			})
		}
		answers, err := servers[0].Ask(t.Context(), "nested", nil)
		require.NoError(t, err)
		assert.Equal(t, map[string]string{servers[0].Node(): "2", servers[1].Node(): "2"}, numbers(answers))
	})
}

// What is too large for the broker is an error: of the one node that answers, or of Ask.
func TestAskWithTooMuchData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers, _ := askedNodes(t, 2)
		large := strings.Repeat("a", 16<<20)
		servers[1].HandleAsk("large", func(context.Context, json.RawMessage) (any, error) { return large, nil })
		answers, err := servers[0].Ask(t.Context(), "large", nil)
		require.NoError(t, err)
		require.Len(t, answers.Answers, 2)
		assert.Equal(t, "the answer is too large for the broker", answers.Answers[1].Err)
		answers, err = servers[0].Ask(t.Context(), "number", large)
		require.ErrorIs(t, err, broker.ErrTooLarge)
		assert.Equal(t, map[string]string{servers[0].Node(): "0"}, numbers(answers))
	})
}

// With a Broker that does not know its nodes, Ask waits for the whole time, and cannot
// tell who is silent but for this node.
func TestAskOverABrokerThatDoesNotKnowItsNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		srv := askable(t, struct{ broker.Broker }{cluster.Broker()})
		other := askable(t, struct{ broker.Broker }{cluster.Broker()})
		openNode(t, cluster.Broker(), "silent", func(broker.Entry) {})
		began := time.Now()
		answers, err := srv.Ask(t.Context(), "number", nil)
		require.NoError(t, err)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
		assert.Equal(t, map[string]string{srv.Node(): "7", other.Node(): "7"}, numbers(answers))
		assert.Nil(t, answers.Silent)

		hang := make(chan struct{})
		defer close(hang)
		srv.HandleAsk("hang", func(context.Context, json.RawMessage) (any, error) {
			<-hang
			return 1, nil
		})
		answers, err = srv.Ask(t.Context(), "hang", nil)
		require.NoError(t, err)
		assert.Equal(t, []string{srv.Node()}, answers.Silent)
	})
}
