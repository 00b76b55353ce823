package origin_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
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
			_, allowed := p.Check(r)
			assert.Equal(t, c.allowed, allowed)
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

// Issue 11, number 14: each entry is converted to the form that browsers send, or refused with the
// reason.
func TestEntries(t *testing.T) {
	t.Parallel()
	for listed, sent := range map[string]string{
		"https://a.example":                  "https://a.example",
		"HTTPS://A.Example":                  "https://a.example",
		"https://a.example/":                 "https://a.example",
		"https://a.example:":                 "https://a.example",
		"https://a.example:443":              "https://a.example",
		"https://a.example:0443":             "https://a.example",
		"http://a.example:00000080/":         "http://a.example",
		"http://a.example:0443":              "http://a.example:443",
		"https://a.example.":                 "https://a.example.",
		"https://a_b.example":                "https://a_b.example",
		"https://XN--bcher-kva.example":      "https://xn--bcher-kva.example",
		"http://localhost:3000":              "http://localhost:3000",
		"http://127.1:3000":                  "http://127.0.0.1:3000",
		"http://127.0.0.1.":                  "http://127.0.0.1",
		"http://0x7f.1":                      "http://127.0.0.1",
		"http://017700000001":                "http://127.0.0.1",
		"http://2130706433":                  "http://127.0.0.1",
		"http://192.168.257":                 "http://192.168.1.1",
		"http://[0:0:0:0:0:0:0:1]":           "http://[::1]",
		"http://[2001:DB8:0:0:1:0:0:0]:0808": "http://[2001:db8:0:0:1::]:808",
		"http://[::ffff:127.0.0.1]":          "http://[::ffff:7f00:1]",
		"http://[::FFFF:7f00:1]":             "http://[::ffff:7f00:1]",
		"capacitor://localhost":              "capacitor://localhost",
		"app://.":                            "app://.",
		"chrome-extension://abcdefghijklmno": "chrome-extension://abcdefghijklmno",
		"file://":                            "file://",
		"file:///":                           "file://",
		"https://*.Example.com":              "https://*.example.com",
		"https://*.example.com:0443/":        "https://*.example.com",
		"https://*.example.com.":             "https://*.example.com.",
		"http://*.dev.example.com:08080":     "http://*.dev.example.com:8080",
	} {
		p, err := origin.New([]string{listed})
		if assert.NoError(t, err, listed) {
			assert.Equal(t, []string{sent}, p.Listed())
			again, err := origin.New(p.Listed())
			require.NoError(t, err)
			assert.Equal(t, p, again)
		}
	}
	for listed, reason := range map[string]string{
		"":                            "scheme",
		"a.example":                   "scheme",
		"//a.example":                 "scheme",
		"*.a.example":                 "scheme",
		"https:a.example":             "scheme",
		" https://a.example":          "scheme",
		"h_t://a.example":             "scheme",
		"*://a.example":               "scheme",
		"null":                        "null",
		"wss://a.example":             "https",
		"ws://a.example":              "http",
		"blob:https://a.example":      "blob",
		"https://":                    "no host",
		"https://:443":                "no host",
		"https://.":                   "no host",
		"https://a.example/x":         "path",
		"https://a.example?x":         "query",
		"https://a.example/?x":        "query",
		"https://a.example#x":         "fragment",
		`https://a.example\x`:         "path",
		"https://u@a.example":         "user name",
		"https://u:p@a.example":       "user name",
		"https://a.example:x":         "port",
		"https://a.example:65536":     "port",
		"https://a.example:0":         "port",
		"https://a.example:-1":        "port",
		"https://a.example:+443":      "port",
		"https://bücher.example":      "Punycode",
		"https://*.bücher.example":    "Punycode",
		"https://ex%61mple.com":       "percent",
		"https://b%C3%BCcher.example": "percent",
		"https://a..example":          "empty label",
		"https://.a.example":          "empty label",
		"https://a.example..":         "empty label",
		"https://a b.example":         "character",
		"https://a.example ":          "character",
		"https://a,b.example":         "character",
		"https://" + strings.Repeat("a", 64) + ".example":  "63",
		"https://" + strings.Repeat("a.", 130) + "example": "253",
		"http://256.0.0.1":          "IPv4",
		"http://1.2.3.4.5":          "IPv4",
		"http://127.0.0.08":         "IPv4",
		"http://a.1":                "IPv4",
		"http://::1":                "IPv6",
		"http://[::1":               "IPv6",
		"http://[::1]x":             "IPv6",
		"http://[127.0.0.1]":        "IPv6",
		"http://[fe80::1%25eth0]":   "zone",
		"http://[fe80::1%eth0]":     "zone",
		"https://*":                 "star",
		"https://*.com":             "star",
		"https://*.com.":            "star",
		"https://*.":                "star",
		"https://*.localhost":       "star",
		"https://a.*.example.com":   "star",
		"https://*.*.example.com":   "star",
		"https://a*.example.com":    "star",
		"https://*example.com":      "star",
		"https://example.*":         "star",
		"https://*:443":             "star",
		"https://a.example:*":       "port",
		"http://*.127.0.0.1":        "IP address",
		"http://*.0x7f.1":           "IP address",
		"chrome-extension://*.a.b":  "star",
		"file:///home/me/page.html": "file://",
	} {
		_, err := origin.New([]string{"https://good.example", listed})
		if assert.Error(t, err, listed) {
			assert.Contains(t, err.Error(), reason)
			assert.Contains(t, err.Error(), strconv.Quote(listed))
		}
	}
}

// A wildcard allows one or more labels, with its own port and scheme.
func TestWildcard(t *testing.T) {
	t.Parallel()
	p, err := origin.New([]string{"https://*.example.com", "http://*.example.org:8080", "file://"})
	require.NoError(t, err)
	for sent, want := range map[string]bool{
		"https://a.example.com":              true,
		"https://a.b-c.d_e.example.com":      true,
		"https://A.EXAMPLE.com:443":          true,
		"http://x.example.org:8080":          true,
		"file://":                            true,
		"https://example.com":                false,
		"https://.example.com":               false,
		"https://a..example.com":             false,
		"https://..example.com":              false,
		"https://a.example.com.":             false,
		"https://aexample.com":               false,
		"https://a.example.com:8443":         false,
		"http://a.example.com":               false,
		"https://a.example.com.evil.example": false,
		"https://evil.example/.example.com":  false,
		"https://evil.example?.example.com":  false,
		"https://evil.example#.example.com":  false,
		`https://evil.example\.example.com`:  false,
		"https://evil.example@.example.com":  false,
		"https://a b.example.com":            false,
		"https://bücher.example.com":         false,
		"https://*.example.com":              false,
		"http://x.example.org":               false,
		"null":                               false,
		"file:///etc/passwd":                 true, // no browser sends it
		"file:":                              false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = "server.example"
		r.Header.Set("Origin", sent)
		_, allowed := p.Check(r)
		assert.Equal(t, want, allowed, sent)
	}
}

// Check returns the page that was refused.
func TestCheckNamesThePage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, origin, site, referer, page string }{
		{name: "origin", origin: "HTTPS://B.example:443", page: "https://b.example"},
		{name: "null", origin: "null", page: "null"},
		{name: "noOrigin", origin: "b.example", page: "b.example"},
		{name: "referer", site: "cross-site", referer: "https://b.example/secret?token", page: "https://b.example"},
		{name: "hidden", site: "cross-site"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site, "Referer": c.referer} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			page, allowed := origin.Policy{}.Check(r)
			assert.False(t, allowed)
			assert.Equal(t, c.page, page)
		})
	}
}

func FuzzEntry(f *testing.F) {
	for _, seed := range []string{"https://*.example.com:0443/", "http://[::ffff:1.2.3.4]", "http://0x7f.1", "file:///", "app://x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := origin.New([]string{s})
		if err != nil || s == "*" {
			return
		}
		listed := p.Listed()[0]
		again, err := origin.New([]string{listed})
		require.NoError(t, err, listed)
		require.Equal(t, p, again)
		listed = strings.Replace(listed, "*", "sub", 1)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Origin", listed)
		_, allowed := p.Check(r)
		require.True(t, allowed, "what is listed as %q is allowed as %q", s, listed)
	})
}
