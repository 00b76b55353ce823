package pushy_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// Issue 11, number 27: tokens over what PHP 8.2's json_encode makes of the data by
// default; sent is what the browser makes of the same value.
func TestTokensOverPHPsSpelling(t *testing.T) {
	t.Parallel()
	const id = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"
	vectors := []struct{ name, sent, auth string }{
		{"accent", "{\"name\":\"Zo\u00eb\"}", "8d6b330b8d197aac792803eda8d6c4d7d60b03e3235fc1e7a72057a59e640dcc"},
		{"url", "{\"url\":\"https://x/\u00e9?a=1&b=<2>\"}", "a5561d6eed94f6cf750d5ff4a017dcec8bee9fc831e097038e95db4eb800dcfc"},
		{"emoji", "{\"e\":\"\U0001f600\U0010ffff\"}", "419870b7ec54206bd5d10d6fbcf5004bf70682d6cb809b60590e2b79289591ea"},
		{"controls", "{\"q\":\"\\\"\\\\ \u2028 \u007f \\u0001\\n'\"}", "a2cfaa00fb325fb8f52a344d5cd7355a3c8b2eef5cd2946b6bc46dd2cf9bc8d8"},
		{"nested", "{\"n\":{\"a/b\":{\"\u00fc\":null,\"l\":[1,2.5,true]}}}", "5ecf96c89459bb2fe6ed0f28600dd9767746d5f90119e06548d15dfb3e8998b0"},
		{"textOfJSON", "\"{\\\"name\\\":\\\"Zo\\\\u00eb\\\",\\\"u\\\":\\\"http:\\\\/\\\\/x\\\"}\"", "9ce8a3dab59998d97b5123203af5c78c7abdde151db9fc4da65295554a857393"},
		{"emptyArray", "[]", "429c3fe84a3266af8546034c85d6ad4bbbd785352e5e91fd4c49ea1f80b0e54d"},
	}
	srv := startServer(t, pushy.Options{SecretKey: "secret"})
	srv.SetConnIDs(func() string { return id })
	p := connectPeer(t, srv)
	for i, v := range vectors {
		for j, other := range vectors {
			p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-php","auth":%q,"data":%s}}`, v.auth, other.sent))
			f := p.next()
			if i != j {
				require.Equal(t, "Invalid credentials", f.field("reason"), "the token of %s for %s", v.name, other.name)
				continue
			}
			require.Equal(t, "pushy:subscription-success", f.Event, "%s: %s", v.name, f)
			p.send(`{"command":"unsubscribe","data":{"channel":"private-php"}}`)
			assert.Equal(t, "pushy:subscription-end", p.next().Event)
		}
	}
	// What only looks like an escape is another value.
	zoe := vectors[0]
	for _, other := range []string{`{"name":"Zo\\u00eb"}`, `"{\"name\":\"Zo\u00eb\"}"`, `{"name":"Zo\u00EB "}`, `{"name":"Zoë"}`, `["name","Zoë"]`} {
		p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-php","auth":%q,"data":%s}}`, zoe.auth, other))
		assert.Equal(t, "Invalid credentials", p.next().field("reason"), other)
	}
}
