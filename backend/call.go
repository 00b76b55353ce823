package backend

import (
	"context"
	"encoding/json"

	"github.com/gopushy/pushy/internal/names"
)

// query calls a call that changes nothing, and returns its answer. If it fails, the answer is the
// last one that came with an error, which has what the node that answered knows.
func query[A any](ctx context.Context, c *Client, call string, body any) (answer A, err error) {
	r := request{
		what:  call,
		path:  "/api/" + call,
		id:    names.RandomHex(16),
		query: true,
	}
	var whole A
	err = c.do(ctx, r, body, &whole, parts(func(part A) { answer = part }))
	if err == nil {
		answer = whole
	}
	return answer, err
}

// change calls a call that changes something. all receives the answers of all tries that had one,
// in their order, because each try does what the earlier ones have not done. If the error is nil,
// the last answer is complete.
func change[A any](ctx context.Context, c *Client, call, id string, body any, all func(A)) error {
	var whole A
	err := c.change(ctx, call, id, body, &whole, parts(all))
	if err == nil {
		all(whole)
	}
	return err
}

// parts returns a func for do that decodes the answers that come with an error.
func parts[A any](each func(A)) func(body []byte) {
	return func(body []byte) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(body, &fields) != nil || len(fields) < 2 {
			return // it has only the error
		}
		var part A
		if json.Unmarshal(body, &part) == nil {
			each(part)
		}
	}
}
