package pushytest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

// newChat is the app under test: who is in the lobby may speak there.
func newChat() (*pushy.Server, error) {
	srv, err := pushy.New(pushy.Options{SecretKey: "a long secret, from the environment"})
	if err != nil {
		return nil, err
	}
	type line struct {
		Text string `json:"text"`
	}
	pushy.Handle(srv, "say", func(ctx context.Context, conn *pushy.Conn, l line) (int, error) {
		lobby, ok := srv.Channels().Lookup("lobby")
		if !ok || !lobby.Has(conn) {
			return 0, &pushy.Error{Code: "403", Message: "Come in first"}
		}
		_, err := srv.PublishEvent(ctx, pushy.Event{
			Channel: "lobby",
			Name:    "said",
			Data:    l,
			Except:  []string{conn.ID()},
		})
		return len(l.Text), err
	})
	return srv, nil
}

// testSay is what an app has as TestSay in a file of its tests.
func testSay(t pushytest.TB) {
	srv, err := newChat()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = srv.Close() })

	kit := pushytest.New(t, srv)
	ann, bob := kit.Connect(), kit.Connect()
	bob.Subscribe("lobby")

	err = ann.Exec("say", map[string]string{"text": "Hello"}, nil)
	fmt.Println(err)
	bob.ExpectNone("lobby", "said")

	ann.Subscribe("lobby")
	var length int
	err = ann.Exec("say", map[string]string{"text": "Hello"}, &length)
	fmt.Println(length, err)
	fmt.Println(bob.ExpectEvent("lobby", "said", nil))
	ann.ExpectNone("lobby", "said")

	bob.Drop()
	lobby, _ := srv.Channels().Lookup("lobby")
	fmt.Println(lobby.Len())
}

// Testing a command: Ann may speak once she is in the lobby, Bob hears it, and she
// does not hear herself.
func Example() {
	t := &exampleT{} // in a test it is the *testing.T
	defer t.end()
	testSay(t)
	// Output:
	// pushy: Come in first (403)
	// 5 <nil>
	// said on lobby {"text":"Hello"}
	// 1
}

var _ pushytest.TB = (*testing.T)(nil)
