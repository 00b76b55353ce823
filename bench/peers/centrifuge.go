package main

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

// centrifugeNode is centrifuge as it comes, or with the settings that it has for
// busy channels and many idle connections: replies and messages are gathered for a
// millisecond by a timer and joined without a limit, buffers are small and
// pooled, commands do not hold up a reading goroutine.
func centrifugeNode(mux *http.ServeMux, tuned bool) publisher {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		reply := centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "somebody"}}
		if tuned {
			reply.WriteDelay = time.Millisecond
			reply.WriteWithTimer = true
			reply.MaxMessagesInFrame = -1
			reply.ReplyWithoutQueue = true
		}
		return reply, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	config := centrifuge.WebsocketConfig{CheckOrigin: anyOrigin, UseWriteBufferPool: true}
	if tuned {
		config.ReadBufferSize = 512
		config.ProcessCommandsOffReadLoop = true
	}
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, config))
	return func(channel string, data []byte) {
		if _, err := node.Publish(channel, data); err != nil {
			log.Print(err)
		}
	}
}
