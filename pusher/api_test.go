package pusher_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pusher"
)

// signedAPI is a request to the HTTP API, as an SDK makes it.
type signedAPI struct {
	method, path string
	body         string
	query        map[string]string
	at           time.Time
	edit         func(query map[string]string) // after the signature
	signedPath   string                        // instead of path
}

func (s *signedAPI) url() string {
	query := map[string]string{
		"auth_key":       appKey,
		"auth_version":   "1.0",
		"auth_timestamp": strconv.FormatInt(s.at.Unix(), 10),
	}
	if s.body != "" {
		digest := md5.Sum([]byte(s.body))
		query["body_md5"] = hex.EncodeToString(digest[:])
	}
	for key, value := range s.query {
		query[key] = value
	}
	var keys []string
	for key := range query {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var pairs []string
	for _, key := range keys {
		pairs = append(pairs, strings.ToLower(key)+"="+query[key])
	}
	path := s.path
	if s.signedPath != "" {
		path = s.signedPath
	}
	auth := sign(s.method + "\n" + path + "\n" + strings.Join(pairs, "&"))
	query["auth_signature"] = strings.TrimPrefix(auth, appKey+":")
	if s.edit != nil {
		s.edit(query)
	}
	values := url.Values{}
	for key, value := range query {
		values.Set(key, value)
	}
	return "http://pushy.test" + s.path + "?" + values.Encode()
}

func (n *node) do(s signedAPI) (status int, body string, head http.Header) {
	n.t.Helper()
	if s.at.IsZero() {
		s.at = time.Now()
	}
	return n.raw(s.method, s.url(), s.body)
}

func (n *node) raw(method, target, body string) (status int, answer string, head http.Header) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, target, strings.NewReader(body))
	require.NoError(n.t, err)
	res, err := n.http.Do(r)
	require.NoError(n.t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(n.t, err)
	require.NoError(n.t, res.Body.Close())
	return res.StatusCode, string(text), res.Header
}

// post and get make a call that must succeed.
func (n *node) post(path, body string) string {
	n.t.Helper()
	status, answer, head := n.do(signedAPI{method: "POST", path: path, body: body})
	require.Equal(n.t, 200, status, answer)
	require.Equal(n.t, "application/json", head.Get("Content-Type"))
	return answer
}

func (n *node) get(path string, query map[string]string) string {
	n.t.Helper()
	status, answer, _ := n.do(signedAPI{method: "GET", path: path, query: query})
	require.Equal(n.t, 200, status, answer)
	return answer
}

// The vectors of Pusher's documentation. laravel/reverb#356: under a path prefix, signatures are valid
// with and without it. laravel/reverb#289: a 401 says what the server has signed.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	n.p.SetNow(func() time.Time { return time.Unix(1353088179, 0) })
	const auth = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0"
	body := `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`
	query := auth + "&body_md5=ec365a775a4cd0599faeb73354201b6f" +
		"&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
	c := n.dial()
	c.join("project-3")
	status, answer, _ := n.raw("POST", "http://pushy.test/apps/3/events?"+query, body)
	require.Equal(t, 200, status, answer)
	assert.Equal(t, "{}", answer)
	assert.Equal(t, `{"some":"data"}`, c.expect("foo").content(t))
	status, answer, _ = n.raw("GET", "http://pushy.test/apps/3/channels?"+auth+
		"&filter_by_prefix=presence-&info=user_count,subscription_count"+
		"&auth_signature=ff97d40ab3fbbd15394386a29c12998c33635305357b2e2abd18dc67efe3f87d", "")
	require.Equal(t, 200, status, answer)
	assert.Equal(t, `{"channels":{}}`, answer)
	status, answer, _ = n.raw("POST", "http://pushy.test/apps/3/events?"+query, body+" ")
	assert.Equal(t, 401, status)
	assert.Contains(t, answer, "body_md5")
	status, answer, _ = n.raw("POST", "http://pushy.test/apps/3/batch_events?"+query, body)
	assert.Equal(t, 401, status)
	assert.Contains(t, answer, "POST\n/apps/3/batch_events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179"+
		"&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f")
	assert.Contains(t, answer, "1353088179,")
	assert.NotContains(t, answer, appSecret)
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{}, pusher.Options{Prefix: "/realtime", OldSecrets: []string{"another secret of the app"}})
	good := signedAPI{method: "POST", path: "/realtime/apps/3/events", body: `{"name":"e","channel":"news","data":"1"}`}
	status, answer, _ := n.do(good)
	require.Equal(t, 200, status, answer)
	without := good
	without.signedPath = "/apps/3/events"
	status, answer, _ = n.do(without)
	require.Equal(t, 200, status, answer)
	// SDKs sign the id of a user as it is, and send it escaped.
	for signed, want := range map[string]int{
		"/realtime/apps/3/users/Zo%C3%AB%20%F0%9F%98%80/terminate_connections":      200,
		"/apps/3/users/Zo%C3%AB%20%F0%9F%98%80/terminate_connections":               200,
		"/realtime/apps/3/users/Zoë 😀/terminate_connections":                        200,
		"/apps/3/users/Zoë 😀/terminate_connections":                                 200,
		"/apps/3/users/Zoe 😀/terminate_connections":                                 401,
		"/apps/3/users/Zo%25C3%25AB%2520%25F0%259F%2598%2580/terminate_connections": 401,
	} {
		status, answer, _ = n.do(signedAPI{
			method:     "POST",
			path:       "/realtime/apps/3/users/Zo%C3%AB%20%F0%9F%98%80/terminate_connections",
			body:       "{}",
			signedPath: signed,
		})
		assert.Equal(t, want, status, "%s: %s", signed, answer)
	}
	for name, c := range map[string]struct {
		status int
		change func(s *signedAPI)
	}{
		"late":           {401, func(s *signedAPI) { s.at = time.Now().Add(-602 * time.Second) }},
		"early":          {401, func(s *signedAPI) { s.at = time.Now().Add(602 * time.Second) }},
		"almostLate":     {200, func(s *signedAPI) { s.at = time.Now().Add(-570 * time.Second) }},
		"upperCase":      {401, edit(func(q map[string]string) { q["auth_signature"] = strings.ToUpper(q["auth_signature"]) })},
		"noSignature":    {401, edit(func(q map[string]string) { delete(q, "auth_signature") })},
		"emptySignature": {401, edit(func(q map[string]string) { q["auth_signature"] = "" })},
		"noKey":          {401, edit(func(q map[string]string) { delete(q, "auth_key") })},
		"otherKey":       {401, edit(func(q map[string]string) { q["auth_key"] = "x" })},
		"noVersion":      {401, edit(func(q map[string]string) { delete(q, "auth_version") })},
		"noTime":         {401, edit(func(q map[string]string) { delete(q, "auth_timestamp") })},
		"oddTime":        {401, func(s *signedAPI) { s.query = map[string]string{"auth_timestamp": "1e9"} }},
		"noMD5":          {401, edit(func(q map[string]string) { delete(q, "body_md5") })},
		"wrongMD5":       {401, func(s *signedAPI) { s.query = map[string]string{"body_md5": strings.Repeat("0", 32)} }},
		"upperMD5":       {401, edit(func(q map[string]string) { q["body_md5"] = strings.ToUpper(q["body_md5"]) })},
		"added":          {401, edit(func(q map[string]string) { q["x"] = "1" })},
		"twiceByCase":    {400, edit(func(q map[string]string) { q["Auth_key"] = appKey })},
		"otherApp":       {404, func(s *signedAPI) { s.path = "/realtime/apps/4/events" }},
		"noPrefix":       {404, func(s *signedAPI) { s.path = "/apps/3/events" }},
		"noEndpoint":     {404, func(s *signedAPI) { s.path = "/realtime/apps/3/nothing" }},
		"method":         {405, func(s *signedAPI) { s.path = "/realtime/apps/3/channels" }},
	} {
		s := good
		c.change(&s)
		status, answer, head := n.do(s)
		assert.Equal(t, c.status, status, "%s: %s", name, answer)
		assert.NotContains(t, answer, appSecret)
		if status == 405 {
			assert.Equal(t, "GET", head.Get("Allow"))
		}
	}
	status, _, _ = n.raw("POST", (&signedAPI{method: "POST", path: good.path, body: good.body, at: time.Now()}).url()+"&auth_key="+appKey, good.body)
	assert.Equal(t, 400, status, "a parameter twice")
}

func edit(change func(query map[string]string)) func(s *signedAPI) {
	return func(s *signedAPI) { s.edit = change }
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	a, b := n.dial(), n.dial()
	a.join("news")
	b.join("news")
	a.list("presence-x", channelData("1"))
	b.list("presence-x", channelData("1"))
	for _, content := range []string{`123`, `"123"`, `null`, `not JSON`, `9007199254740993`, `{"e":"😀"}`, `{"a": 1}`, ``, `"quoted"`} {
		body, err := json.Marshal(map[string]any{"name": `App\Events\Shipped`, "channels": []string{"news"}, "data": content, "socket_id": b.id})
		require.NoError(t, err)
		assert.Equal(t, "{}", n.post("/apps/3/events", string(body)))
		got := a.expect(`App\Events\Shipped`).content(t)
		assert.Equal(t, parsed(content), parsed(got), "what pusher-js makes of it")
	}
	b.sync() // its socket_id was excluded
	n.post("/apps/3/events", `{"name":"e","channel":"news","data":{"x":[1]}}`)
	assert.Equal(t, `{"x":[1]}`, a.expect("e").content(t))
	b.expect("e")
	assert.JSONEq(t, `{"channels":{"news":{"subscription_count":2},"presence-x":{"user_count":1,"subscription_count":2}}}`,
		n.post("/apps/3/events", `{"name":"e","channels":["news","presence-x"],"data":"1","info":"user_count,subscription_count"}`))
	assert.JSONEq(t, `{"batch":[{"subscription_count":2},{}]}`,
		n.post("/apps/3/batch_events", `{"batch":[{"name":"e","channel":"news","data":"1","info":"subscription_count"},{"name":"f","channel":"other","data":"1"}]}`))
	a.signIn(`{"id":"42"}`)
	a.expectSkipping("e", "pusher:signin_success")
	a.join("#server-to-user-42")
	n.post("/apps/3/events", `{"name":"App\\Direct","channels":["#server-to-user-42"],"data":"{\"n\":1}"}`)
	g := a.expect(`App\Direct`)
	assert.Equal(t, "#server-to-user-42", g.Channel)
	assert.Equal(t, `{"n":1}`, g.content(t))
}

// parsed returns the value that pusher-js makes of the data of an event, as JSON.
func parsed(content string) string {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(content)) == nil {
		return compact.String()
	}
	quoted, _ := json.Marshal(content)
	return string(quoted)
}

func TestTriggerRefuses(t *testing.T) {
	t.Parallel()
	n := serve(t, pushy.Options{})
	c := n.dial()
	c.join("news")
	names := func(count int) string {
		var list []string
		for i := range count {
			list = append(list, fmt.Sprintf("%q", fmt.Sprint("news-", i)))
		}
		return strings.Join(list, ",")
	}
	batch := func(count int) string {
		return `{"batch":[` + strings.TrimSuffix(strings.Repeat(`{"name":"e","channel":"a","data":"1"},`, count), ",") + `]}`
	}
	for _, bad := range []struct {
		path, body string
		status     int
	}{
		{"events", `x`, 400}, {"events", `[]`, 400}, {"events", `{}`, 400},
		{"events", `{"name":"e","data":"1"}`, 400},
		{"events", `{"name":"e","channel":"news"}`, 400},
		{"events", `{"channel":"news","data":"1"}`, 400},
		{"events", `{"name":5,"channel":"news","data":"1"}`, 400},
		{"events", `{"name":"pusher:x","channel":"news","data":"1"}`, 400},
		{"events", `{"name":"pusher_internal:x","channel":"news","data":"1"}`, 400},
		{"events", `{"name":"pushy:gap","channel":"news","data":"1"}`, 400},
		{"events", `{"name":"` + strings.Repeat("x", 201) + `","channel":"news","data":"1"}`, 400},
		{"events", `{"name":"e","channel":"news","channels":["news"],"data":"1"}`, 400},
		{"events", `{"name":"e","channels":[],"data":"1"}`, 400},
		{"events", `{"name":"e","channels":["news",5],"data":"1"}`, 400},
		{"events", `{"name":"e","channels":"news","data":"1"}`, 400},
		{"events", `{"name":"e","channels":["news","a b"],"data":"1"}`, 400},
		{"events", `{"name":"e","channels":["news","#server-to-user-"],"data":"1"}`, 400},
		{"events", `{"name":"e","channels":["news",` + names(100) + `],"data":"1"}`, 400},
		{"events", `{"name":"e","channel":"news","data":"1","socket_id":"x"}`, 400},
		{"events", `{"name":"e","channel":"news","data":"1","socket_id":5}`, 400},
		{"events", `{"name":"e","channel":"news","data":"1","info":"what"}`, 400},
		{"events", `{"name":"e","channel":"news","data":"` + strings.Repeat("x", 10<<10+1) + `"}`, 413},
		{"events", `{"name":"e","channel":"news","data":"1","x":"` + strings.Repeat("x", 257<<10) + `"}`, 413},
		{"batch_events", `{"batch":[]}`, 400}, {"batch_events", `{"batch":{}}`, 400}, {"batch_events", batch(11), 400},
		{"batch_events", `{"batch":[{"name":"e","channel":"news","data":"1"},{"name":"e","channels":["news"],"data":"1"}]}`, 400},
		{"batch_events", `{"batch":[{"name":"e","channel":"news","data":"1"},5]}`, 400},
	} {
		status, answer, _ := n.do(signedAPI{method: "POST", path: "/apps/3/" + bad.path, body: bad.body})
		assert.Equal(t, bad.status, status, "%.80s: %s", bad.body, answer)
	}
	c.sync() // nothing was sent
	n.post("/apps/3/events", `{"name":"e","channels":[`+names(100)+`],"data":"`+strings.Repeat("x", 10<<10)+`"}`)
	n.post("/apps/3/batch_events", batch(10))
}

func TestQueries(t *testing.T) {
	t.Parallel()
	cluster := newCluster()
	n, other := serve(t, pushy.Options{Broker: cluster.Broker()}), serve(t, pushy.Options{Broker: cluster.Broker()})
	a, b := n.dial(), other.dial()
	assert.JSONEq(t, `{"channels":{}}`, n.get("/apps/3/channels", nil))
	assert.JSONEq(t, `{"occupied":false}`, n.get("/apps/3/channels/news", nil))
	a.join("news")
	b.join("news")
	a.list("presence-App.Room", channelData("1"))
	b.list("presence-App.Room", channelData("1"))
	b.list("presence-other", channelData("2"))
	a.join("cache-price")
	a.expect("pusher:cache_miss")
	require.NoError(t, n.srv.Publish(t.Context(), "cache-price", "price", map[string]int{"n": 1}))
	a.expect("price")
	// laravel/reverb#130, #92: users are counted, not connections.
	assert.JSONEq(t, `{"channels":{"presence-App.Room":{"user_count":1},"presence-other":{"user_count":1}}}`,
		n.get("/apps/3/channels", map[string]string{"filter_by_prefix": "presence-", "info": "user_count"}))
	assert.JSONEq(t, `{"occupied":true,"user_count":1,"subscription_count":2}`,
		n.get("/apps/3/channels/presence-App.Room", map[string]string{"info": "user_count,subscription_count"}))
	assert.JSONEq(t, `{"users":[{"id":"1"}]}`, other.get("/apps/3/channels/presence-App.Room/users", nil))
	assert.JSONEq(t, `{"channels":{"news":{"subscription_count":2}}}`,
		other.get("/apps/3/channels", map[string]string{"filter_by_prefix": "news", "info": "subscription_count"}))
	var cached struct {
		Occupied bool
		Cache    struct {
			Data string
			TTL  int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(n.get("/apps/3/channels/cache-price", map[string]string{"info": "cache"})), &cached))
	assert.True(t, cached.Occupied)
	assert.Equal(t, `{"n":1}`, cached.Cache.Data)
	assert.InDelta(t, 1800, cached.Cache.TTL, 60)
	for path, query := range map[string]map[string]string{
		"/apps/3/channels":            {"info": "user_count"},
		"/apps/3/channels/news":       {"info": "user_count"},
		"/apps/3/channels/other":      {"info": "cache"},
		"/apps/3/channels/a b":        nil,
		"/apps/3/channels/cache-x":    {"info": "nothing"},
		"/apps/3/channels/news/users": nil,
	} {
		s := signedAPI{method: "GET", path: strings.ReplaceAll(path, " ", "%20"), query: query}
		status, answer, _ := n.do(s)
		assert.Equal(t, 400, status, "%s: %s", path, answer)
	}
	// pushy's own API lists channels with capitals, too, from all nodes.
	list, err := n.srv.ListChannels(t.Context(), pushy.ChannelQuery{Count: true})
	require.NoError(t, err)
	assert.Empty(t, list.Silent)
	assert.Equal(t, 2, list.Nodes)
	assert.Equal(t, "presence-App.Room", list.Channels[2].Name)
	assert.Equal(t, 2, list.Channels[2].Subscribers)
	// A user's connections on the other node are closed.
	b.signIn(`{"id":"42"}`)
	b.expect("pusher:signin_success")
	n.post("/apps/3/users/42/terminate_connections", `{}`)
	code, _ := b.closed()
	assert.Equal(t, 4009, code)
	a.sync()
}

// An event whose name pushy's own publishers must not use reaches the clients of other nodes.
func TestLaravelEventsBetweenNodes(t *testing.T) {
	t.Parallel()
	cluster := newCluster()
	n, other := serve(t, pushy.Options{Broker: cluster.Broker()}), serve(t, pushy.Options{Broker: cluster.Broker()})
	c := other.dial()
	c.join("private-App.Models.User.1")
	n.post("/apps/3/events", `{"name":"App\\Events\\OrderShipped","channel":"private-App.Models.User.1","data":"{\"id\":7}"}`)
	assert.Equal(t, `{"id":7}`, c.expect(`App\Events\OrderShipped`).content(t))
}

// FuzzAPISignature changes a signed request: none of the changes may be accepted.
func FuzzAPISignature(f *testing.F) {
	f.Add("auth_key=278d425bdf160c739803&auth_timestamp=1&auth_version=1.0&auth_signature=00", `{"name":"e","channel":"news","data":"1"}`)
	f.Add("auth_signature", "")
	f.Add("a=1&A=2&%zz", "{}")
	f.Fuzz(func(t *testing.T, query, body string) {
		n := serve(t, pushy.Options{})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pushy.test/apps/3/events", strings.NewReader(body))
		require.NoError(t, err)
		r.URL.RawQuery = query
		r.RequestURI = "/apps/3/events?" + query
		w := newRecorder()
		n.p.Handler().ServeHTTP(w, r)
		require.Contains(t, []int{400, 401, 413}, w.status)
		require.NotContains(t, w.body.String(), appSecret)
	})
}
