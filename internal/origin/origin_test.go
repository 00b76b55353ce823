package origin_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/origin"
)

func TestAllows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		listed  []string
		host    string
		origins []string
		site    string
		allowed bool
	}{
		{name: "none", host: "a.example", allowed: true},
		{name: "noneSameOrigin", host: "a.example", site: "same-origin", allowed: true},
		{name: "noneByHand", host: "a.example", site: "none", allowed: true},
		{name: "noneCrossSite", host: "a.example", site: "cross-site"},
		{name: "noneSameSite", host: "a.example", site: "same-site"},
		{name: "own", host: "a.example", origins: []string{"https://a.example"}, allowed: true},
		{name: "ownSaysSameSite", host: "a.example", site: "same-site", origins: []string{"https://a.example"}, allowed: true},
		{name: "schemeIgnored", host: "a.example", origins: []string{"http://a.example"}, allowed: true},
		{name: "case", host: "A.example", origins: []string{"https://a.EXAMPLE"}, allowed: true},
		{name: "port", host: "a.example:8080", origins: []string{"http://a.example:8080"}, allowed: true},
		{name: "otherPort", host: "a.example:8080", origins: []string{"http://a.example"}},
		{name: "ownPortSaid", host: "a.example:80", origins: []string{"http://a.example"}, allowed: true},
		{name: "ownPortUnsaid", host: "a.example", origins: []string{"https://a.example:443"}, allowed: true},
		{name: "otherSchemesPort", host: "a.example", origins: []string{"http://a.example:443"}},
		{name: "ipv6", host: "[::1]:80", origins: []string{"http://[::1]"}, allowed: true},
		{name: "null", host: "null", origins: []string{"null"}},
		{name: "empty", host: "a.example", origins: []string{""}},
		{name: "broken", host: "a.example", origins: []string{"://a.example"}},
		{name: "two", host: "a.example", origins: []string{"https://a.example", "https://a.example"}},
		{name: "foreign", host: "a.example", origins: []string{"https://b.example"}},
		{name: "endsAlike", host: "a.example", origins: []string{"https://evila.example"}},
		{name: "listed", listed: []string{"https://b.example"}, host: "a.example", origins: []string{"https://B.example:443"}, allowed: true},
		{name: "listedSlash", listed: []string{"https://b.example:443/"}, host: "a.example", origins: []string{"https://b.example"}, allowed: true},
		{name: "listedOtherScheme", listed: []string{"https://b.example"}, host: "a.example", origins: []string{"http://b.example"}},
		{name: "listedSubdomain", listed: []string{"https://b.example"}, host: "a.example", origins: []string{"https://x.b.example"}},
		{name: "listedNull", listed: []string{"https://b.example"}, host: "a.example", origins: []string{"null"}},
		{name: "any", listed: []string{"*"}, host: "a.example", origins: []string{"null"}, site: "cross-site", allowed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := origin.New(c.listed)
			require.NoError(t, err)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = c.host
			for _, o := range c.origins {
				r.Header.Add("Origin", o)
			}
			if c.site != "" {
				r.Header.Set("Sec-Fetch-Site", c.site)
			}
			r.Header.Set("X-Forwarded-Host", "b.example")
			assert.Equal(t, c.allowed, p.Allows(r))
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"", "a.example", "https://", "https://a.example/x", "https://a.example?x", "https://a.example#x", "https://u@a.example", "null"} {
		_, err := origin.New([]string{o})
		assert.Error(t, err, "%q", o)
	}
}
