package pushytest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// Recovering, passed to [Kit.Connect], makes a client that recovers as the browser client
// does: it keeps its memberships of private channels while its connection is lost, and
// remembers the position of the last event of each channel that keeps events.
func Recovering(r *http.Request) {
	query := r.URL.Query()
	query.Set("v", "2")
	r.URL.RawQuery = query.Encode()
}

func (c *Client) recovering() bool { return c.request.URL.Query().Get("v") == "2" }

// Blink loses the connection without a close frame, calls meanwhile, unless it is nil, and
// calls Resume. It returns the answers to the subscriptions, by channel. A client that is not
// Recovering reconnects, too, but without positions and as a new member.
func (c *Client) Blink(meanwhile func()) map[string]Subscribed {
	c.kit.t.Helper()
	c.Drop()
	if meanwhile != nil {
		meanwhile()
	}
	return c.Resume()
}

// Resume connects a client again whose connection has ended, and subscribes to its channels
// with the Grants of before. It returns the answers, by channel. ExpectEvent returns the
// events that had arrived before, and then those that are replayed. The client has a new ID.
func (c *Client) Resume() map[string]Subscribed {
	c.kit.t.Helper()
	return c.MoveTo(c.kit)
}

// MoveTo is Resume on the Server of another Kit, as if a load balancer had chosen another
// server. The Brokers of both Servers use the same store, such as a memory.Cluster.
func (c *Client) MoveTo(k *Kit) map[string]Subscribed {
	c.kit.t.Helper()
	c.await("it is still connected: call Drop, Close or Kit.Drain first", c.read)
	c.kit = k
	c.mu.Lock()
	c.former = append(c.former, c.id)
	c.former = c.former[max(0, len(c.former)-maxFormer):]
	channels := slices.Sorted(maps.Keys(c.stays))
	grants := map[string][]Grant{}
	for name, s := range c.stays {
		grants[name] = s.grant
	}
	c.mu.Unlock()
	c.connect()
	all := map[string]Subscribed{}
	for _, name := range channels {
		all[name] = c.Subscribe(name, grants[name]...)
	}
	return all
}

// maxFormer is how many ids a client may send as "was".
const maxFormer = 8

// Drain shuts the Server down, as a deploy does, and returns when all clients have received
// their close code, after which they may Resume or MoveTo another Server. Clients that are
// Recovering receive pushy:drain before it, with the time after which a browser would return. The test fails if
// that takes longer than Kit.Patience.
func (k *Kit) Drain() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), k.Patience)
	defer cancel()
	if err := k.srv.Shutdown(ctx); err != nil {
		k.t.Fatalf("pushytest: the Server does not shut down within %v: %v\n%s", k.Patience, err, k.goroutines())
	}
	k.mu.Lock()
	connections := k.connections
	k.mu.Unlock()
	for _, c := range connections {
		c.client.await("the Server does not end the connection", c.read)
	}
}

// position is the place of an event.
type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// stay is a client's subscription to a channel, with what it takes to continue it.
type stay struct {
	grant       []Grant
	place       *position // of the last event that the client has
	top         *position // after the replay
	replay      int       // the number of events that are still to be replayed
	recovered   bool      // the replay continues at place
	member, key string
}

// recover adds to the data of a subscribe command what makes it continue the client's last
// subscription.
func (c *Client) recover(channel string, data map[string]any) {
	if !c.recovering() {
		return
	}
	data["hold"] = true
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stays[channel]
	if s == nil {
		return
	}
	if s.key != "" {
		data["member"] = map[string]string{"id": s.member, "key": s.key}
	}
	if s.place != nil {
		data["since"] = *s.place
		data["was"] = c.former
	}
}

func (c *Client) remember(channel string, grant []Grant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.stays[channel]; s != nil { // otherwise it has ended already
		s.grant = grant
	}
}

// follow updates the client's subscriptions with a message, as PROTOCOL.md, section 14,
// demands. c.mu is held.
func (c *Client) follow(e Event) {
	if e.Channel == "" {
		c.followDirect(e)
		return
	}
	s := c.stays[e.Channel]
	switch {
	case s == nil:
	case e.Event == "pushy:resync":
		var at position
		if json.Unmarshal(e.Data, &at) == nil && at.Epoch != "" {
			s.place = &at
		}
	case e.Offset == 0:
	case s.replay > 0:
		s.replay--
		if s.replay == 0 {
			s.place = s.top
		} else if s.recovered && s.top != nil {
			s.place = &position{s.top.Epoch, e.Offset}
		}
	case s.place != nil:
		s.place = &position{s.place.Epoch, e.Offset}
	}
}

// followDirect is follow for a message that belongs to no channel.
func (c *Client) followDirect(e Event) {
	var data struct {
		position
		Channel   string
		MemberID  string
		Key       string
		Recovered bool
		Replay    int
	}
	if e.Event != "pushy:subscription-success" && e.Event != "pushy:subscription-end" ||
		json.Unmarshal(e.Data, &data) != nil {
		return
	}
	if e.Event == "pushy:subscription-end" {
		delete(c.stays, data.Channel)
		return
	}
	s := c.stays[data.Channel]
	if s == nil {
		s = &stay{}
		c.stays[data.Channel] = s
	}
	s.member, s.key = data.MemberID, data.Key
	s.replay, s.recovered = data.Replay, data.Recovered
	s.top = nil
	if data.Epoch != "" {
		s.top = &data.position
	}
	if s.replay == 0 {
		s.place = s.top
	}
}
