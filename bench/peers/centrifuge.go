package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
)

var (
	redisAddr = flag.String("redis", "", "HOST:PORT of a Redis that centrifuge's nodes share")
	history   = flag.Int("keep", 0, "events that centrifuge keeps of each channel, with recovery")
)

// memberPrefix begins the names of channels whose members have presence.
const memberPrefix = "private-"

// centrifugeNode is centrifuge with its default options, or with its options for busy channels
// and many idle connections: a timer collects replies and messages for a millisecond and joins
// them without a limit, buffers are small and pooled, and commands do not delay a reading
// goroutine.
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
		client.OnSubscribe(func(e centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			options := centrifuge.SubscribeOptions{EnableRecovery: *history > 0}
			if strings.HasPrefix(e.Channel, memberPrefix) {
				options.EmitPresence = true
				options.EmitJoinLeave = true
				options.PushJoinLeave = true
				options.ChannelInfo = e.Data
			}
			answer(centrifuge.SubscribeReply{Options: options}, nil)
		})
		client.OnUnsubscribe(func(centrifuge.UnsubscribeEvent) {})
		client.OnPresence(func(_ centrifuge.PresenceEvent, answer centrifuge.PresenceCallback) {
			answer(centrifuge.PresenceReply{}, nil)
		})
		client.OnRPC(func(e centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
			data, err := e.Data, error(nil)
			if e.Method == "typed" {
				data, err = decodeAndEncode(data)
			}
			answer(centrifuge.RPCReply{Data: data}, err)
		})
	})
	if *redisAddr != "" {
		if err := share(node, *redisAddr); err != nil {
			log.Fatal(err)
		}
	}
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	config := centrifuge.WebsocketConfig{CheckOrigin: anyOrigin, UseWriteBufferPool: true}
	if tuned {
		config.ReadBufferSize = 512
		config.ProcessCommandsOffReadLoop = true
	}
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, config))
	var options []centrifuge.PublishOption
	if *history > 0 {
		options = append(options, centrifuge.WithHistory(*history, 5*time.Minute))
	}
	return func(channel string, data []byte) {
		if _, err := node.Publish(channel, data, options...); err != nil {
			log.Print(err)
		}
	}
}

// share makes a node use Redis for events and presence, with default options. Without history an event
// costs only its PUBLISH.
func share(node *centrifuge.Node, redis string) error {
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: redis})
	if err != nil {
		return err
	}
	shards := []*centrifuge.RedisShard{shard}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: shards})
	if err != nil {
		return err
	}
	presence, err := centrifuge.NewRedisPresenceManager(node, centrifuge.RedisPresenceManagerConfig{Shards: shards})
	if err != nil {
		return err
	}
	node.SetBroker(broker)
	node.SetPresenceManager(presence)
	return nil
}

// decodeAndEncode does what a program with typed commands does with the data of the load generator.
func decodeAndEncode(data []byte) ([]byte, error) {
	var v struct {
		Token string `json:"t"`
		Pad   string `json:"p"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
