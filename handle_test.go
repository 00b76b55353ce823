package pushy_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
)

type square struct {
	X int8 `json:"x"`
	Y int8 `json:"y"`
}

type moveRequest struct {
	From square  `json:"from"`
	To   *square `json:"to"`
}

type moveReply struct {
	Distance int `json:"distance"`
}

var errSecret = errors.New("the database said something that is no client's business")

func TestTypedCommandAnswers(t *testing.T) {
	t.Parallel()
	var log testlog.Log
	srv := startServer(t, pushy.Options{Logger: log.Logger()})
	pushy.Handle(srv, "Move", func(_ context.Context, conn *pushy.Conn, req moveRequest) (moveReply, error) {
		switch {
		case req.To == nil:
			return moveReply{}, &pushy.Error{Code: "no-target", Message: "Say where to"}
		case req.From == *req.To:
			return moveReply{}, errors.Join(errSecret, &pushy.Error{Code: "lazy", Message: "That is no move"})
		case req.To.X < 0:
			return moveReply{}, errSecret
		case req.To.Y < 0:
			panic(errSecret)
		}
		assert.NoError(t, conn.Send("moving", req.To))
		return moveReply{int(req.To.X-req.From.X) + int(req.To.Y-req.From.Y)}, nil
	})
	pushy.Handle(srv, "nothing", func(context.Context, *pushy.Conn, struct{}) (any, error) { return nil, nil })
	pushy.Handle(srv, "no-number", func(context.Context, *pushy.Conn, struct{}) (float64, error) { return math.NaN(), nil })

	p := connectPeer(t, srv)
	p.send(`{"command":"MOVE","id":"a\u0062","data":{"from":{"x":1,"y":1},"to":{"x":3,"y":4}}}`)
	p.expect(`moving {"x":3,"y":4}`)
	p.expect(`pushy:reply {"id":"a\u0062","data":{"distance":5}}`)
	for _, c := range []struct{ name, send, answer string }{
		{"withoutID", `{"command":"nothing"}`, ""},
		{"idThatIsNone", `{"command":"nothing","id":{}}`, ""},
		{"null", `{"command":"nothing","id":-1.0}`, `pushy:reply {"id":-1.0,"data":null}`},
		{"emptyData", `{"command":"nothing","id":1,"data":{}}`, `pushy:reply {"id":1,"data":null}`},
		{"noEncoding", `{"command":"no-number","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`},
		{"noEncodingWithoutID", `{"command":"no-number"}`, `pushy:error {"message":"Internal error","code":"500"}`},
		{"noData", `{"command":"move","id":1}`, `pushy:error {"message":"Say where to","code":"no-target","id":1}`},
		{"error", `{"command":"move","data":{}}`, `pushy:error {"message":"Say where to","code":"no-target"}`},
		{"errorInside", `{"command":"move","id":1,"data":{"to":{}}}`, `pushy:error {"message":"That is no move","code":"lazy","id":1}`},
		{"otherError", `{"command":"move","id":1,"data":{"to":{"x":-1}}}`, `pushy:error {"message":"Internal error","code":"500","id":1}`},
		{"otherErrorWithoutID", `{"command":"move","data":{"to":{"x":-1}}}`, `pushy:error {"message":"Internal error","code":"500"}`},
		{"panic", `{"command":"move","id":1,"data":{"to":{"y":-1}}}`, `pushy:error {"message":"Internal error","code":"500","id":1}`},
		{"wrongType", `{"command":"move","id":1,"data":{"from":{"x":"1"}}}`, `pushy:error {"message":"from.x: must be a number, not a string","code":"400","id":1}`},
		{"wrongTypeWithoutID", `{"command":"move","data":[1]}`, `pushy:error {"message":"data must be an object, not an array","code":"400"}`},
		{"null", `{"command":"move","id":1,"data":null}`, `pushy:error {"message":"data must be an object, not null","code":"400","id":1}`},
		{"unknownField", `{"command":"move","id":1,"data":{"from":{"z":1}}}`, `pushy:error {"message":"from.z: unknown field","code":"400","id":1}`},
		{"otherCase", `{"command":"move","id":1,"data":{"TO":{}}}`, `pushy:error {"message":"TO: unknown field; did you mean to?","code":"400","id":1}`},
		{"repeated", `{"command":"move","id":1,"data":{"to":{},"to":{}}}`, `pushy:error {"message":"to: duplicate field","code":"400","id":1}`},
		{"outOfRange", `{"command":"move","id":1,"data":{"to":{"x":128}}}`, `pushy:error {"message":"to.x: must be a whole number from -128 to 127","code":"400","id":1}`},
	} {
		p.send(c.send)
		if c.answer != "" {
			require.Equal(t, c.answer, p.next().String(), c.name)
		}
		p.quiet()
	}
	said := log.String()
	assert.Contains(t, said, errSecret.Error())
	assert.NotContains(t, said, "must be a number", "what clients get wrong is not the host's concern")
}

func TestTypedCommandTimesOut(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{CommandTimeout: 3 * time.Second})
		pushy.Handle(srv, "wait", func(ctx context.Context, _ *pushy.Conn, how string) (string, error) {
			switch <-ctx.Done(); how {
			case "wrapped":
				return "", errors.New("query cancelled")
			case "own":
				return "", &pushy.Error{Code: "busy", Message: "Ask again"}
			case "late":
				time.Sleep(time.Second)
				return "done all the same", nil
			}
			return "", ctx.Err()
		})
		pushy.Handle(srv, "inner", func(ctx context.Context, _ *pushy.Conn, _ struct{}) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-ctx.Done()
			return "", ctx.Err()
		})
		p := connectPeer(t, srv)
		for _, c := range []struct {
			send, answer string
			after        time.Duration
		}{
			{`{"command":"wait","id":1,"data":""}`, `pushy:error {"message":"Command timed out","code":"504","id":1}`, 3 * time.Second},
			{`{"command":"wait","data":""}`, `pushy:error {"message":"Command timed out","code":"504"}`, 3 * time.Second},
			{`{"command":"wait","id":1,"data":"wrapped"}`, `pushy:error {"message":"Command timed out","code":"504","id":1}`, 3 * time.Second},
			{`{"command":"wait","id":1,"data":"own"}`, `pushy:error {"message":"Ask again","code":"busy","id":1}`, 3 * time.Second},
			{`{"command":"wait","id":1,"data":"late"}`, `pushy:reply {"id":1,"data":"done all the same"}`, 4 * time.Second},
			{`{"command":"inner","id":1}`, `pushy:error {"message":"Internal error","code":"500","id":1}`, time.Second},
		} {
			begun := time.Now()
			p.send(c.send)
			p.expect(c.answer)
			assert.Equal(t, c.after, time.Since(begun), c.send)
		}
	})
}

// The context of a typed command is one of context.WithTimeout, whenever it is first used.
func TestTypedCommandContext(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{CommandTimeout: 3 * time.Second})
		kept := make(chan context.Context, 1)
		pushy.Handle(srv, "keep", func(ctx context.Context, _ *pushy.Conn, sleep int) (string, error) {
			kept <- ctx
			time.Sleep(time.Duration(sleep) * time.Second)
			return "", nil
		})
		p := connectPeer(t, srv)
		for _, c := range []struct {
			name, data string
			err        error
		}{
			{"afterTheCommand", "0", context.Canceled},
			{"afterTheTimeout", "4", context.DeadlineExceeded},
		} {
			p.send(`{"command":"keep","id":1,"data":` + c.data + `}`)
			p.expect(`pushy:reply {"id":1,"data":""}`)
			ctx := <-kept
			<-ctx.Done()
			assert.Equal(t, c.err, ctx.Err(), c.name)
			assert.Equal(t, c.err, context.Cause(ctx), c.name)
		}
		for _, c := range []struct {
			name string
			wait func(ctx context.Context) error
		}{
			{"cause", func(ctx context.Context) error {
				assert.NoError(t, context.Cause(ctx))
				<-ctx.Done()
				return context.Cause(ctx)
			}},
			{"child", func(ctx context.Context) error {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				<-child.Done()
				return child.Err()
			}},
			{"afterFunc", func(ctx context.Context) error {
				done := make(chan error)
				context.AfterFunc(ctx, func() { done <- ctx.Err() })
				return <-done
			}},
		} {
			ended := make(chan error, 1)
			pushy.Handle(srv, c.name, func(ctx context.Context, _ *pushy.Conn, _ struct{}) (string, error) {
				ended <- c.wait(ctx)
				return "", nil
			})
			p.send(`{"command":"` + c.name + `","id":1}`)
			assert.Equal(t, context.DeadlineExceeded, <-ended, c.name)
			p.expect(`pushy:reply {"id":1,"data":""}`)
		}
		gone := make(chan error, 1)
		pushy.Handle(srv, "gone", func(ctx context.Context, conn *pushy.Conn, _ struct{}) (string, error) {
			err := conn.Close(1000, "")
			<-ctx.Done()
			gone <- ctx.Err()
			return "", err
		})
		p.send(`{"command":"gone"}`)
		assert.Equal(t, context.Canceled, <-gone, "of a connection that has ended")
	})
}

// The default is 30 s, and a negative number is no limit.
func TestCommandTimeoutDefaults(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		for timeout, want := range map[time.Duration]time.Duration{0: 30 * time.Second, -1: 1 << 30 * time.Second} {
			srv := startServer(t, pushy.Options{CommandTimeout: timeout})
			pushy.Handle(srv, "left", func(ctx context.Context, _ *pushy.Conn, _ struct{}) (time.Duration, error) {
				deadline, _ := ctx.Deadline()
				return time.Until(deadline), nil
			})
			p := connectPeer(t, srv)
			f := p.ask(`{"command":"left","id":1}`)
			assert.Equal(t, `{"id":1,"data":`+strconv.FormatInt(int64(want), 10)+`}`, string(f.Data))
		}
	})
}

func TestTypedCommandOfAConnectionThatEnds(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		log, lines := warned()
		srv := startServer(t, pushy.Options{Logger: log})
		ended := make(chan error, 1)
		pushy.Handle(srv, "wait", func(ctx context.Context, _ *pushy.Conn, _ struct{}) (any, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
		p := connectPeer(t, srv)
		p.send(`{"command":"wait","id":1}`)
		synctest.Wait()
		require.NoError(t, p.conn(srv).Close(pushy.CloseRemoved, "out"))
		assert.Equal(t, context.Canceled, <-ended)
		assert.Equal(t, pushy.CloseRemoved, p.ended().Code)
		p.Close(pushy.CloseRemoved, "")
		synctest.Wait()
		assert.Empty(t, lines())
	})
}

func TestHandlePanicsOnMistakes(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	ok := func(context.Context, *pushy.Conn, struct{}) (any, error) { return nil, nil }
	pushy.Handle(srv, "taken", ok)
	assert.Panics(t, func() { pushy.Handle(srv, "TAKEN", ok) })
	assert.Panics(t, func() { pushy.Handle(srv, "", ok) })
	assert.PanicsWithValue(t, "pushy: Handle: nil func for command x", func() {
		pushy.Handle[struct{}, any](srv, "x", nil)
	})
	assert.PanicsWithValue(t, "pushy: Handle: command x: field C: chan int cannot be decoded from JSON", func() {
		pushy.Handle(srv, "x", func(context.Context, *pushy.Conn, struct{ C chan int }) (any, error) { return nil, nil })
	})
	pushy.Handle(srv, "x", ok)
	// A built-in command may be replaced by a typed one, too.
	pushy.Handle(srv, "subscribe", func(context.Context, *pushy.Conn, struct{}) (string, error) { return "mine", nil })
	p := connectPeer(t, srv)
	p.send(`{"command":"Subscribe","id":1}`)
	p.expect(`pushy:reply {"id":1,"data":"mine"}`)
}
