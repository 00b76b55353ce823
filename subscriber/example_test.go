package subscriber_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/subscriber"
)

// A process that indexes orders, and goes on where it was when it is started again.
func Example() {
	const secretKey = "a long secret, from the environment"
	// The server, which runs elsewhere. It keeps the events of its channels.
	srv, err := pushy.New(pushy.Options{
		SecretKey: secretKey,
		Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 100, TTL: time.Hour}}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	web := httptest.NewServer(srv)
	defer web.Close()

	ctx := context.Background()
	var saved broker.Position             // in the database of this process
	for _, stop := range []uint64{3, 6} { // the process is started twice
		c, err := subscriber.Dial(ctx, web.URL+"/pushy", subscriber.Options{
			Token: subscriber.SignWith(secretKey),
		})
		if err != nil {
			log.Fatal(err)
		}
		orders, err := c.Subscribe(ctx, "private-orders", &subscriber.SubscribeOptions{Since: saved})
		if err != nil {
			log.Fatal(err)
		}
		for i := range 3 {
			if err := srv.Publish(ctx, "private-orders", "paid", i); err != nil {
				log.Fatal(err)
			}
		}
		for e, err := range orders.Events() {
			if err != nil {
				log.Fatal(err)
			}
			saved = orders.Position() // the events before e are handled
			if e.Position.Offset == stop {
				break // the process is stopped before it has handled e
			}
			fmt.Println(e.Name, e.Position.Offset)
		}
		c.Close()
	}
	// Output:
	// paid 1
	// paid 2
	// paid 3
	// paid 4
	// paid 5
}
