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
		referer string
		allowed bool
	}{
		{name: "none", host: "a.example", allowed: true},
		{name: "noneSameOrigin", host: "a.example", site: "same-origin", allowed: true},
		{name: "noneByHand", host: "a.example", site: "none", allowed: true},
		{name: "noneCrossSite", host: "a.example", site: "cross-site"},
		{name: "noneSameSite", host: "a.example", site: "same-site"},
		{name: "scriptOfOwnPage", host: "a.example", referer: "https://a.example/page", allowed: true},
		{name: "scriptOfListedPage", listed: []string{"https://b.example"}, host: "a.example", site: "cross-site", referer: "https://b.example/", allowed: true},
		{name: "scriptOfForeignPage", host: "a.example", site: "cross-site", referer: "https://b.example/"},
		{name: "scriptOfForeignPageInAnOldBrowser", host: "a.example", referer: "https://b.example/page?https://a.example"},
		{name: "scriptOfAPageWithUserInfo", host: "a.example", referer: "https://a.example@b.example/"},
		{name: "scriptOfOwnPageThatAnotherRedirected", host: "a.example", site: "cross-site", referer: "https://a.example/page"},
		{name: "brokenReferer", host: "a.example", referer: "a.example"},
		{name: "ownPageBehindAProxy", host: "backend:8080", site: "same-origin", referer: "https://a.example/", allowed: true},
		{name: "originBeforeReferer", host: "a.example", origins: []string{"https://b.example"}, referer: "https://a.example/"},
		{name: "nullBeforeReferer", host: "a.example", origins: []string{"null"}, referer: "https://a.example/"},
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
			if c.referer != "" {
				r.Header.Set("Referer", c.referer)
			}
			r.Header.Set("X-Forwarded-Host", "b.example")
			assert.Equal(t, c.allowed, p.Allows(r))
		})
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, origin, site, referer string
		page                        string
		said                        bool
	}{
		{name: "nothing"},
		{name: "own", origin: "http://A.example:80", said: true},
		{name: "other", origin: "http://b.example", page: "http://b.example", said: true},
		{name: "null", origin: "null", page: "null", said: true},
		{name: "eventSourceOfOwnPage", site: "same-origin", said: true},
		{name: "behindAProxy", origin: "https://public.example", site: "same-origin", said: true},
		{name: "scriptOfOwnPage", referer: "https://a.example/page", said: true},
		{name: "scriptOfOtherPage", site: "cross-site", referer: "https://B.example:443/page", page: "https://b.example", said: true},
		{name: "originBeforeReferer", origin: "http://b.example", referer: "http://a.example/", page: "http://b.example", said: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = "a.example"
			for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site, "Referer": c.referer} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			page, said := origin.Page(r)
			assert.Equal(t, c.page, page)
			assert.Equal(t, c.said, said)
		})
	}
}

func TestFrame(t *testing.T) {
	t.Parallel()
	for want, listed := range map[string][]string{
		"frame-ancestors 'self'": nil,
		"frame-ancestors 'self' https://a.example http://b.example:8080": {"https://a.example:443/", "http://B.example:8080"},
		"": {"https://a.example", "*"},
	} {
		p, err := origin.New(listed)
		require.NoError(t, err)
		h := http.Header{}
		p.Frame(h)
		assert.Equal(t, want, h.Get("Content-Security-Policy"))
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"", "a.example", "https://", "https://a.example/x", "https://a.example?x", "https://a.example#x", "https://u@a.example", "null"} {
		_, err := origin.New([]string{o})
		assert.Error(t, err, "%q", o)
	}
}
