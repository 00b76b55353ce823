package backend

import (
	"context"
	"encoding/json"
	"fmt"

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
// the last answer is complete. id is that of the caller, or "".
func change[A any](ctx context.Context, c *Client, call, id string, body any, all func(A)) error {
	if id == "" {
		id = names.RandomHex(16)
	} else if !names.IsToken(id) {
		return failed(call, fmt.Errorf("the id %q must be 1 to 64 of A-Z a-z 0-9 _ -", shortened(id)))
	}
	r := request{
		what: call,
		path: "/api/" + call,
		id:   id,
	}
	var whole A
	err := c.do(ctx, r, body, &whole, parts(all))
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
