package pushytest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

func publishPrice(srv *pushy.Server, share string, price int) error {
	_, err := srv.PublishEvent(context.Background(), pushy.Event{
		Channel: "prices",
		Name:    "price",
		Data:    price,
		Latest:  share,
	})
	return err
}

func TestStall(t *testing.T) {
	both(t, func(t *testing.T) {
		srv := start(t, pushy.Options{})
		kit := pushytest.New(t, srv)
		ann, bob := kit.Connect(), kit.Connect()
		ann.Subscribe("prices")
		bob.Subscribe("prices")
		for round := range 3 {
			ann.Stall(func() {
				for n := range 20 {
					require.NoError(t, publishPrice(srv, "ACME", 100*round+n))
				}
				require.NoError(t, srv.Publish(t.Context(), "prices", "closed", nil))
				bob.ExpectEvent("prices", "closed", nil)
			})
			var price int
			ann.ExpectEvent("prices", "price", &price)
			assert.Equal(t, 100*round+19, price)
			ann.ExpectDropped("Prices", 19)
			ann.ExpectNone("prices", "price")
			ann.ExpectNone("", "pushy:error")
		}
	})
}

// A client that stalls for too long is disconnected, as one on a slow network.
func TestStallEndsTheConnection(t *testing.T) {
	both(t, func(t *testing.T) {
		srv := start(t, pushy.Options{})
		ann := pushytest.New(t, srv).Connect()
		ann.Subscribe("news")
		ann.Stall(func() {
			for range 5 {
				require.NoError(t, srv.Publish(t.Context(), "news", "large", strings.Repeat("x", 250<<10)))
			}
		})
		code, reason := ann.ExpectClose()
		assert.Equal(t, pushy.CloseSlowConsumer, code)
		assert.Equal(t, "slow consumer", reason)
	})
}

func TestExpectDroppedFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, count := range []int{1, 9} {
			said := record(func(rec pushytest.TB) {
				srv := start(rec, pushy.Options{})
				ann := pushytest.New(rec, srv).Connect()
				ann.Subscribe("prices")
				ann.Stall(func() {
					for n := range 9 {
						require.NoError(t, publishPrice(srv, "ACME", n))
					}
				})
				ann.ExpectDropped("prices", count)
			})
			require.NotEmpty(t, said)
			assert.Contains(t, said[0], fmt.Sprintf("8 events of prices were dropped, not %d", count))
		}
	})
}

// A client on a slow network receives the newest price, and the number of those that it has missed.
func ExampleClient_Stall() {
	t := &exampleT{} // in a test it is the *testing.T
	defer t.end()
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	ann := pushytest.New(t, srv).Connect()
	ann.Subscribe("prices")

	ann.Stall(func() {
		for price := range 18 {
			_, _ = srv.PublishEvent(context.Background(), pushy.Event{
				Channel: "prices",
				Name:    "price",
				Data:    price,
				Latest:  "ACME",
			})
		}
	})
	fmt.Println(ann.ExpectEvent("prices", "price", nil))
	ann.ExpectDropped("prices", 17)
	// Output:
	// price on prices 17
}
