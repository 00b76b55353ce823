package pushytest

import (
	"encoding/json"
	"strconv"
)

// Stall calls meanwhile while the client reads nothing, as one on a network that is too slow or in
// a phone that sleeps: everything that the Server queues for it during the call remains queued.
// Afterwards the client reads on. If Limits.ConnBuffer or Options.WriteTimeout is exceeded
// meanwhile, the Server disconnects the client: see ExpectClose. meanwhile must not call methods
// of the client that wait for the Server.
func (c *Client) Stall(meanwhile func()) {
	c.kit.t.Helper()
	waits, resume := c.pipe.Stall()
	defer resume()
	c.asked++
	id := fenceID + strconv.Itoa(c.asked)
	c.send("pushytest:fence", nil, id) // its answer is the write that waits
	c.await("the Server does not answer: a command does not return", waits)
	meanwhile()
	resume()
	if _, ok := c.take(func(e Event) bool { return e.Channel == "" && e.answers(id) }); !ok && c.end() == nil {
		c.fail("the Server does not answer: a command does not return")
	}
}

// ExpectDropped waits until the Server has said that count events of a channel were not sent to
// the client, because they were published with Latest or Droppable and the client was too slow.
// It adds the numbers of several messages, which come at most once a second, and fails if the sum
// is not count. Messages that an ExpectEvent has returned do not count.
func (c *Client) ExpectDropped(channel string, count int) {
	c.kit.t.Helper()
	channel = lower(channel)
	for told := 0; told < count; {
		e, ok := c.take(func(e Event) bool { return e.Channel == channel && e.Event == "pushy:dropped" })
		if !ok {
			c.fail("%d events of %s were dropped, not %d", told, channel, count)
		}
		var data struct{ Count int }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			c.fail("invalid pushy:dropped: %v", err)
		}
		told += data.Count
		if told > count {
			c.fail("%d events of %s were dropped, not %d", told, channel, count)
		}
	}
}
