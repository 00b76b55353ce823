package publishers_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/pushytest"
)

var phpStarted = regexp.MustCompile(`\((http://127\.0\.0\.1:\d+)\) started`)

// startPHP runs PHP's own web server in this directory, and returns its URL.
func startPHP(t *testing.T, env ...string) string {
	t.Helper()
	cmd := exec.Command("php", "-d", "session.save_path="+t.TempDir(), "-d", "display_errors=stderr",
		"-S", "127.0.0.1:0", "-t", ".")
	cmd.Env = slices.Concat(os.Environ(), []string{"PUSHY_SECRET_KEY=" + secret}, env)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	started := make(chan string, 1)
	ended := make(chan string, 1) // the log
	go func() {
		var log strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if found := phpStarted.FindStringSubmatch(lines.Text()); found != nil {
				started <- found[1]
			}
		}
		ended <- log.String()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		assert.NotRegexp(t, "PHP (Fatal|Warning|Notice|Deprecated)", <-ended)
		_ = cmd.Wait()
	})
	select {
	case app := <-started:
		return app
	case log := <-ended:
		ended <- log
		t.Fatal("PHP's web server has not started: " + log)
		return ""
	}
}

// browser is a page of the PHP application, with its cookies.
type browser struct {
	t    *testing.T
	url  string
	http http.Client
}

// login starts a browser. A user of "" is not logged in.
func login(t *testing.T, app, user, name string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{
		t:    t,
		url:  app,
		http: http.Client{Jar: jar},
	}
	if user != "" {
		resp, err := b.http.Get(app + "/testdata/login.php?" + url.Values{"user": {user}, "name": {name}}.Encode())
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
	}
	return b
}

// granted is the answer for a channel.
type granted struct {
	Auth   string
	Data   json.RawMessage
	Error  json.RawMessage
	Code   string
	Status int
}

// authAnswer is the answer for one channel or for several.
type authAnswer struct {
	granted
	Batch    int
	Channels map[string]granted
}

// post sends a form to the auth endpoint.
func (b *browser) post(form string) (status int, body string, a authAnswer) {
	b.t.Helper()
	resp, err := b.http.Post(b.url+"/auth.php", "application/x-www-form-urlencoded;charset=UTF-8", strings.NewReader(form))
	require.NoError(b.t, err)
	raw, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	require.NoError(b.t, resp.Body.Close())
	require.NoError(b.t, json.Unmarshal(raw, &a), string(raw))
	assert.Equal(b.t, "application/json", resp.Header.Get("Content-Type"))
	return resp.StatusCode, string(raw), a
}

// ask asks for channels as the browser client does.
func (b *browser) ask(conn string, more url.Values, channels ...string) (status int, body string, a authAnswer) {
	b.t.Helper()
	form := url.Values{"channel": channels, "connection_id": {conn}}
	for name, values := range more {
		form[name] = values
	}
	return b.post(form.Encode())
}

// claimsOf returns the claims of a token.
func claimsOf(t *testing.T, token string) (claims struct {
	Sub  []string
	Conn string
	Iat  int64
	Exp  int64
}) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[2])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &claims))
	return claims
}

// api.md, acceptance test 12, with an auth endpoint in PHP: tokens for 40 channels, one of which is
// refused, in two requests.
func TestPHPAuthOfManyChannels(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	ann := login(t, startPHP(t), "42", "Änn")
	client := pushytest.New(t, g.srv).Connect()
	status, body, first := ann.ask(client.ID(), nil, "private-user-42")
	require.Equal(t, 200, status, body)
	assert.Equal(t, 100, first.Batch)
	assert.Zero(t, claimsOf(t, first.Auth).Exp, "a client that does not renew its tokens has it as long as its connection")
	client.Subscribe("private-user-42", pushytest.Token(first.Auth, first.Data))

	channels := []string{"private-user-7"}
	for i := range 38 {
		channels = append(channels, fmt.Sprintf("private-team-%d", i+1))
	}
	status, body, many := ann.ask(client.ID(), url.Values{"v": {"2"}}, channels...)
	require.Equal(t, 200, status, body)
	require.Len(t, many.Channels, 39)
	assert.Contains(t, body, `"private-user-7":{"error":"not authorized","code":"403","status":403}`)
	for _, channel := range channels[1:] {
		a := many.Channels[channel]
		assert.JSONEq(t, `{"user":"42","name":"Änn"}`, string(a.Data))
		claims := claimsOf(t, a.Auth)
		assert.InDelta(t, time.Now().Unix(), claims.Iat, 60)
		assert.Equal(t, claims.Iat+3600, claims.Exp)
		in := client.Subscribe(channel, pushytest.Token(a.Auth, a.Data))
		require.Len(t, in.Presence, 1)
		assert.Contains(t, string(in.Presence[0]), `"name":"Änn"`)
	}
}

// What the endpoint refuses, whatever the request has.
func TestPHPAuthRefuses(t *testing.T) {
	t.Parallel()
	app := startPHP(t)
	const conn = "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"
	status, body, _ := login(t, app, "", "").ask(conn, nil, "private-user-42")
	assert.Equal(t, 401, status)
	assert.Contains(t, body, `"authentication needed"`)

	ann := login(t, app, "42", "Ann")
	for _, id := range []string{
		"",
		"x",
		conn + "\n",
		"\n" + conn,
		conn + ":private-user-42",
		strings.ToUpper(conn),
		strings.Replace(conn, "-4a43", "-1a43", 1), // version 1
		strings.Replace(conn, "-9e2c", "-7e2c", 1), // another variant
		strings.ReplaceAll(conn, "-", ""),
		"{" + conn + "}",
		"pushy2-request",
	} {
		status, body, a := ann.ask(id, nil, "private-user-42")
		assert.Equal(t, 400, status, "%q: %s", id, body)
		assert.Empty(t, a.Auth)
	}
	hundred := strings.Repeat("channel=private-user-42&", 100)
	for form, want := range map[string]int{
		"":                        400,
		"connection_id=" + conn:   400,
		"channel=private-user-42": 400,
		"channel=private-user-42&connection_id[]=" + conn:                              400,
		"channel[]=private-user-42&connection_id=" + conn:                              400,
		"xchannel=private-user-42&connection_id=" + conn:                               400,
		"channel=private-user-42&connection_id[a]=" + conn:                             400,
		"channel=private-user-42&connection_id=" + conn + "&connection_id=x":           400,
		`{"channel":"private-user-42","connection_id":"` + conn + `"}`:                 400,
		hundred + "connection_id=" + conn:                                              200,
		hundred + "channel=private-user-42&connection_id=" + conn:                      400,
		"channel=&connection_id=" + conn:                                               403,
		"channel&connection_id=" + conn:                                                400,
		"connection_id=" + conn + "&channel=private%2Duser%2D42":                       200,
		"channel=private-user-42&user=7&data={}&name=Bob&connection_id=" + conn:        200,
		"channel=private-user-7&user[id]=7&_SESSION[user][id]=7&connection_id=" + conn: 403,
	} {
		status, body, a := ann.post(form)
		assert.Equal(t, want, status, "%s: %s", form, body)
		if status != 200 {
			assert.NotContains(t, body, "v2.")
		} else if a.Auth != "" {
			assert.JSONEq(t, `{"user":"42","name":"Ann"}`, string(a.Data))
		}
	}

	// Only the names of channels that the user may enter are signed, exactly as they are.
	names := []string{
		"private-user-7", "private-user-4", "private-user-421", "private-user-42 ", " private-user-42", "private-user-42\n",
		"PRIVATE-USER-42", "private-user-*", "private-*", "*", "", "0", "1", "7", "lobby", "presence-user-42", "__proto__",
		"private-user-42\x00", "private-user-42:x", "private-user-\xff42", "private-team-40", "private-team-0",
		"private-team-1.0",
		"pushy2-request\n80756b1b\n1700000000\norder-17\n/api/publish\n{}",
	}
	for _, name := range names {
		status, body, a := ann.ask(conn, nil, name)
		assert.Equal(t, 403, status, "%q: %s", name, body)
		assert.Contains(t, body, `{"error":{"code":"403","message":"not authorized"},"batch":100}`)
		assert.Empty(t, a.Auth)
	}
	for _, names := range [][]string{names, {"0", "1", "private-user-42"}} { // PHP makes a list of such names
		status, body, many := ann.ask(conn, nil, names...)
		require.Equal(t, 200, status)
		require.Len(t, many.Channels, len(names), body)
		for name, a := range many.Channels {
			assert.Equal(t, name == "private-user-42", a.Auth != "", "%q", name)
			assert.Equal(t, name == "private-user-42", a.Status != 403, "%q", name)
		}
	}
}

// A visitor of a website that has pushy_api.php among its pages cannot run the command. PHP makes
// $argv of the query.
func TestPHPCommandIsNoPage(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	app := startPHP(t, "PUSHY_URL="+g.url)
	for _, path := range []string{
		"/pushy_api.php",
		"/pushy_api.php?publish+lobby+forged",
		"/pushy_api.php?x+publish+lobby+forged",
		"/pushy_api.php/x?x+publish+lobby+forged",
	} {
		resp, err := http.Get(app + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Empty(t, string(body))
	}
	assert.Empty(t, g.requests())
}

// A token is that of one connection, for the channels and the data that it has.
func TestPHPTokensOfOthers(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	app := startPHP(t)
	kit := pushytest.New(t, g.srv)
	ann, bob := kit.Connect(), kit.Connect()
	refused := func(c *pushytest.Client, channel, auth string, data any) {
		t.Helper()
		_, err := c.TrySubscribe(channel, pushytest.Token(auth, data))
		var is *pushytest.RefusedError
		require.ErrorAs(t, err, &is)
		assert.Equal(t, "Invalid credentials", is.Reason)
	}
	_, _, a := login(t, app, "42", "Ann").ask(ann.ID(), nil, "private-user-42")
	require.NotEmpty(t, a.Auth)
	refused(bob, "private-user-42", a.Auth, a.Data)
	refused(ann, "private-user-7", a.Auth, a.Data)
	refused(ann, "private-user-42", a.Auth, map[string]string{"user": "7", "name": "Bob"})

	// Each part of a token that is changed makes it another one.
	parts := strings.Split(a.Auth, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[2])
	require.NoError(t, err)
	for old, other := range map[string]string{
		"private-user-42": "private-user-7",
		ann.ID():          bob.ID(),
		`"user":"42"`:     `"user":"7"`,
		`"iat":`:          `"pub":true,"iat":`,
	} {
		changed := strings.Replace(string(claims), old, other, 1)
		require.NotEqual(t, string(claims), changed)
		payload := base64.RawURLEncoding.EncodeToString([]byte(changed))
		forged := strings.Join([]string{parts[0], parts[1], payload, parts[3]}, ".")
		for _, c := range []*pushytest.Client{ann, bob} {
			refused(c, "private-user-42", forged, nil)
			refused(c, "private-user-7", forged, nil)
		}
	}
	for i := 3; i < len(a.Auth); i += 11 {
		forged := []byte(a.Auth)
		forged[i] ^= 1
		refused(ann, "private-user-42", string(forged), nil)
	}
	ann.Subscribe("private-user-42", pushytest.Token(a.Auth, nil))

	// A ban holds on a server that does not know its users, by the field user of the data.
	_, err = g.srv.Kick(t.Context(), pushy.Kick{
		Target: "user:7",
		Reason: "Spam",
		Until:  time.Now().Add(time.Hour),
	})
	require.NoError(t, err)
	_, _, b := login(t, app, "7", "Bob").ask(bob.ID(), nil, "private-user-7")
	_, err = bob.TrySubscribe("private-user-7", pushytest.Token(b.Auth, b.Data))
	require.ErrorContains(t, err, "Spam")
}

// api.md, acceptance test 5: an endpoint that signs whatever it is given yields no signature of a
// request, because the signed strings of tokens and of requests begin differently.
func TestTokensAreNoSignatures(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	const body = `{"events":[{"channels":["lobby"],"event":"forged"}]}`
	reader := pushytest.New(t, g.srv).Connect()
	reader.Subscribe("lobby")
	now := time.Now().Unix()
	kid := "80756b1b"
	signed := fmt.Sprintf("pushy2-request\n%s\n%d\nx\n/api/publish\n%s", kid, now, body)
	claims := []string{
		"",
		signed,
		"\n" + signed,
		"pushy2-request",
		"pushy2-key-id",
		body,
		fmt.Sprintf("%s\n%d\nx\n/api/publish\n%s", kid, now, body),
		base64.RawURLEncoding.EncodeToString([]byte(signed)),
	}
	vectors := make([]tokenVector, len(claims))
	for i := range claims {
		vectors[i].Secret = secret
		vectors[i].Claims = claims[i]
	}
	input, err := json.Marshal(map[string]any{"Requests": []requestVector{}, "Tokens": vectors})
	require.NoError(t, err)
	for _, token := range sign(t, signers["php"], input).Tokens {
		parts := strings.Split(token, ".")
		require.Len(t, parts, 4)
		for _, header := range []string{
			fmt.Sprintf("v2 %s %d x %s", kid, now, parts[3]),
			fmt.Sprintf("v2 %s %d %s %s", kid, now, "pushy2-token", parts[3]),
			token,
			strings.ReplaceAll(token, ".", " "),
		} {
			for _, content := range []string{body, signed, parts[2], "pushy2-token\n" + kid + "\n" + parts[2]} {
				r, err := http.NewRequest("POST", g.url+"/api/publish", strings.NewReader(content))
				require.NoError(t, err)
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Pushy-Signature", header)
				resp, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Contains(t, []int{401, 403}, resp.StatusCode, "%s\n%s", header, content)
			}
		}
	}
	reader.ExpectNone("lobby", "forged")
}
