package pushy_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy"
)

// granting is an Authorizer that allows everything, on its own terms.
type granting func(r pushy.AuthRequest)

func (g granting) Authorize(_ context.Context, r pushy.AuthRequest) error {
	g(r)
	return nil
}

// An Authorizer chooses the presence data of the member that it allows.
func TestAuthorizerSetsData(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Authorizer: granting(func(r pushy.AuthRequest) {
		if string(r.Data) == `{"name":"Eve"}` {
			r.Grant.Data = []byte(`{"name":"Ann"}`)
		}
	})})
	p := connectPeer(t, srv)
	p.send(`{"command":"subscribe","data":{"channel":"private-room","data":{"name":"Eve"}}}`)
	assert.Equal(t, []string{"Ann"}, p.next().names(t))
	q := connectPeer(t, srv)
	q.send(`{"command":"subscribe","data":{"channel":"private-room","data":{"name":"Bob"}}}`)
	assert.Equal(t, []string{"Ann", "Bob"}, q.next().names(t))
}

// A permission that has ended is not one. The client is to ask for another.
func TestAuthorizerRefusesWithThePast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := time.Duration(0)
		srv := startServer(t, pushy.Options{Authorizer: granting(func(r pushy.AuthRequest) {
			r.Grant.Expires = time.Now().Add(life)
		})})
		p := connectPeer(t, srv)
		const subscribe = `{"command":"subscribe","data":{"channel":"private-room"}}`
		p.send(subscribe)
		p.expect(`pushy:subscription-needauth {"channel":"private-room","reason":"Expired"}`)
		life = time.Millisecond
		p.send(subscribe)
		assert.Equal(t, "pushy:subscription-success", p.next().Event)
	})
}
