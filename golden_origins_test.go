package pushy_test

import (
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gopushy/pushy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// D18: the original let any page connect. The WebSocket's two doors; those that
// are recorded (sockjs-http-misc) belong to the HTTP transports.
func TestOriginsAtWebSockets(t *testing.T) {
	t.Parallel()
	const app = "https://app.example.com"
	tests := []struct {
		name    string
		origins []string
		headers map[string]string // HOST is the server's
		allowed bool
	}{
		{"none", nil, nil, true},
		{"sameSite", nil, map[string]string{"Sec-Fetch-Site": "same-site"}, false},
		{"crossSite", nil, map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		{"sameOrigin", nil, map[string]string{"Origin": "http://HOST"}, true},
		{"sameHostOtherScheme", nil, map[string]string{"Origin": "https://HOST"}, true},
		{"otherPort", nil, map[string]string{"Origin": "http://127.0.0.1:1"}, false},
		{"other", nil, map[string]string{"Origin": app}, false},
		{"forwarded", nil, map[string]string{"Origin": app, "X-Forwarded-Host": "app.example.com"}, false},
		{"null", nil, map[string]string{"Origin": "null"}, false},
		{"listed", []string{app}, map[string]string{"Origin": app}, true},
		{"listedOther", []string{app}, map[string]string{"Origin": "https://evil.example"}, false},
		{"listedSameOrigin", []string{app}, map[string]string{"Origin": "http://HOST"}, true},
		{"any", []string{"*"}, map[string]string{"Origin": "https://evil.example"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, baseURL := serve(t, pushy.Options{Origins: test.origins})
			var options []dialOption
			for name, value := range test.headers {
				value = strings.ReplaceAll(value, "HOST", strings.TrimPrefix(baseURL, "http://"))
				options = append(options, withHeader(name, value))
			}
			for _, framed := range []bool{true, false} {
				if test.allowed {
					dial(t, baseURL, framed, options...)
					continue
				}
				_, err := upgrade(t, baseURL, framed, options...)
				var status ws.StatusError
				require.ErrorAs(t, err, &status)
				assert.EqualValues(t, 403, status)
			}
		})
	}
}
