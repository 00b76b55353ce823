package pushytest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
)

// newNews is an app whose channels keep ten events for an hour.
func newNews(t pushytest.TB, b broker.Broker) *pushy.Server {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "a long secret, from the environment",
		Broker:    b,
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 10, TTL: time.Hour}}
		},
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// A client loses its connection for a moment and receives what it has missed.
func ExampleClient_Blink() {
	t := &exampleT{} // in a test it is the *testing.T
	defer t.end()
	srv := newNews(t, nil)
	ann := pushytest.New(t, srv).Connect(pushytest.Recovering)
	ann.Subscribe("news")

	in := ann.Blink(func() {
		_ = srv.Publish(context.Background(), "news", "headline", "It rains")
	})
	fmt.Println(in["news"].Recovered, in["news"].Replay)
	fmt.Println(ann.ExpectEvent("news", "headline", nil))
	// Output:
	// true 1
	// headline on news "It rains"
}

// A client comes back when its events are not kept any more: it must fetch the state.
func ExampleClient_Resume() {
	t := &exampleT{}
	defer t.end()
	srv := newNews(t, nil)
	ann := pushytest.New(t, srv).Connect(pushytest.Recovering)
	ann.Subscribe("news")

	ann.Drop()
	for n := range 11 { // one more than the channel keeps
		_ = srv.Publish(context.Background(), "news", "headline", n)
	}
	in := ann.Resume()
	fmt.Println(in["news"].Recovered, in["news"].Reason)
	// Output:
	// false trimmed
}

// A deploy: the clients of one Server move to another. Nobody sees that they were away.
func ExampleKit_Drain() {
	t := &exampleT{}
	defer t.end()
	cluster := memory.NewCluster(memory.Options{})
	before := pushytest.New(t, newNews(t, cluster.Broker()))
	after := pushytest.New(t, newNews(t, cluster.Broker()))
	ann := before.Connect(pushytest.Recovering)
	ann.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Ann"}))
	bob := after.Connect(pushytest.Recovering)
	bob.Subscribe("private-room", pushytest.Member(map[string]string{"name": "Bob"}))

	before.Drain()
	in := ann.MoveTo(after)
	fmt.Println(in["private-room"].Resumed, in["private-room"].Recovered)
	bob.ExpectNone("private-room", "pushy:presence-quit")
	// Output:
	// true true
}
