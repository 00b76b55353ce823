package subscriber

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Exec calls a command of the host, and waits for its answer until ctx ends. data is encoded as
// encoding/json does; nil is no data. What the command returns is decoded into out, unless out is nil.
//
// If there is no connection, Exec waits for one. The error is an *Error if the server refuses, wraps
// ErrUncertain if the command was sent and its answer did not arrive, and is a *CloseError with the code
// 1009 if it is too large for the server.
func (c *Client) Exec(ctx context.Context, command string, data, out any) error {
	var raw json.RawMessage
	if data != nil {
		var err error
		if raw, err = json.Marshal(data); err != nil {
			return fmt.Errorf("subscriber: %s: %w", command, err)
		}
	}
	m, err := c.exec(ctx, command, raw)
	if err != nil || out == nil {
		return err
	}
	value := m.Data
	if m.Event == "pushy:reply" {
		value = m.fields.Data
	}
	if err := json.Unmarshal(value, out); err != nil {
		return fmt.Errorf("subscriber: %s: the answer: %w", command, err)
	}
	return nil
}

// exec returns the answer to a command.
func (c *Client) exec(ctx context.Context, command string, data json.RawMessage) (*message, error) {
	type result struct {
		m   *message
		err error
	}
	answered := make(chan result, 1)
	k, id, err := c.call(ctx, command, data, func(m *message, err error) { answered <- result{m, err} })
	if err != nil {
		return nil, err
	}
	var r result
	select {
	case r = <-answered:
	case <-ctx.Done():
		c.mu.Lock()
		delete(k.calls, id)
		c.mu.Unlock()
		return nil, fmt.Errorf("subscriber: %s: %w", command, errors.Join(ErrUncertain, context.Cause(ctx)))
	}
	switch {
	case errors.Is(r.err, ErrUncertain):
		return nil, fmt.Errorf("subscriber: %s: %w", command, r.err)
	case r.err != nil:
		return nil, r.err
	case r.m.Event == "pushy:error":
		return nil, r.m.err()
	}
	return r.m, nil
}

// call sends a command as soon as there is a connection.
func (c *Client) call(ctx context.Context, command string, data json.RawMessage,
	answer func(m *message, err error)) (k *conn, id string, err error) {
	var value any
	if data != nil {
		value = data
	}
	for {
		if k, err = c.await(ctx); err != nil {
			return nil, "", err
		}
		c.mu.Lock()
		if c.conn == k && c.err == nil {
			id = k.callLocked(command, value, answer)
			c.mu.Unlock()
			return k, id, nil
		}
		c.mu.Unlock()
	}
}
