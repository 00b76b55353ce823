package backend_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
)

// newServer starts a server, as it runs elsewhere, and returns a Client for it.
func newServer() (client *backend.Client, stop func()) {
	const key = "a long secret, from the environment"
	srv, err := pushy.New(pushy.Options{SecretKey: key})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(srv)
	client, err = backend.New(backend.Options{
		URL:       web.URL + "/pushy",
		SecretKey: key,
	})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		client.CloseIdleConnections()
		web.Close()
		_ = srv.Close()
	}
}

// A user is removed and stays away for a day. If the answer is lost, the same ID makes it safe to
// call Kick again, also from another process.
func ExampleClient_Kick() {
	client, stop := newServer()
	defer stop()
	kicked, err := client.Kick(context.Background(), backend.Kick{
		Target: "user:42",
		Reason: "Spam",
		Until:  time.Now().Add(24 * time.Hour),
		ID:     "report-17",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("closed %d connections on %d node\n", kicked.Closed, kicked.Nodes)
	if len(kicked.Silent) > 0 {
		fmt.Println("nodes that did not answer read the ban later:", kicked.Silent)
	}
	bans, err := client.Bans(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range bans {
		fmt.Println(b.Target, b.Reason)
	}
	// Output:
	// closed 0 connections on 1 node
	// user:42 Spam
}

// All channels whose names begin with "orders-", with the numbers of their subscribers. A list that
// lacks the channels of nodes that did not answer says so.
func ExampleClient_ChannelPages() {
	client, stop := newServer()
	defer stop()
	subscribers := 0
	silent := map[string]bool{}
	for page, err := range client.ChannelPages(context.Background(), backend.ChannelQuery{
		Prefix: "orders-",
		Count:  true,
	}) {
		if err != nil {
			log.Fatal(err)
		}
		for _, ch := range page.Channels {
			subscribers += ch.Subscribers
		}
		for _, node := range page.Silent {
			silent[node] = true
		}
	}
	fmt.Println(subscribers, "subscribers;", len(silent), "nodes did not answer")
	// Output: 0 subscribers; 0 nodes did not answer
}
