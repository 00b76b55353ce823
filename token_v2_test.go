package pushy_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// tokenVector is an entry of testdata/v2/tokens.json, which other languages read, too. A program
// in Python has made the file.
type tokenVector struct {
	Name    string
	Claims  *string // nil if they are not UTF-8
	Token   string
	Now     int64
	Conn    string
	User    string // Conn.UserID
	Channel string
	Data    *string // sent beside the token
	Result  string  // success, denied or expired
}

func tokenVectors(t testing.TB) (secret, old string, vectors []tokenVector) {
	t.Helper()
	text, err := os.ReadFile("testdata/v2/tokens.json")
	require.NoError(t, err)
	var file struct {
		Secret    string
		OldSecret string `json:"old_secret"`
		KeyID     string `json:"key_id"`
		Vectors   []tokenVector
	}
	require.NoError(t, json.Unmarshal(text, &file))
	require.Equal(t, hmacHex(file.Secret, "pushy2-key-id")[:8], file.KeyID)
	return file.Secret, file.OldSecret, file.Vectors
}

func hmacHex(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// ownTokenV2 is a token of PROTOCOL.md, section 6, computed here and not by the package under
// test.
func ownTokenV2(secret, claims string) string {
	id := hmacHex(secret, "pushy2-key-id")[:8]
	payload := base64.RawURLEncoding.EncodeToString([]byte(claims))
	return "v2." + id + "." + payload + "." + hmacHex(secret, "pushy2-token\n"+id+"\n"+payload)
}

// connectUser connects a client of version 2 whose connection has a user id.
func connectUser(t testing.TB, srv *pushy.Server, user string) *peer {
	t.Helper()
	session, client := inmem.Pipe("websocket")
	srv.ConnectAs(session, user, "")
	p := &peer{t: t, Client: client}
	p.id = p.next().field("socketId")
	require.NotEmpty(t, p.id)
	return p
}

// subscribeWith sends a subscribe with a token and returns the answer. data is JSON or "".
func (p *peer) subscribeWith(channel, auth, data string) frame {
	p.t.Helper()
	more := ""
	if data != "" {
		more = `,"data":` + data
	}
	quoted, err := json.Marshal(auth)
	require.NoError(p.t, err)
	return p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q,"auth":%s%s}}`, channel, quoted, more))
}

// Acceptance test 10 of the signed API, and what is valid.
func TestTokenVectors(t *testing.T) {
	t.Parallel()
	secret, old, vectors := tokenVectors(t)
	require.Greater(t, len(vectors), 75)
	sizes := map[int]bool{}
	for _, v := range vectors {
		sizes[len(v.Token)] = true
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, pushy.Options{SecretKey: secret, OldSecretKeys: []string{old}})
			srv.SetClock(func() time.Time { return time.Unix(v.Now, 0) })
			srv.SetConnIDs(func() string { return v.Conn })
			p := connectUser(t, srv, v.User)
			data := ""
			if v.Data != nil {
				data = *v.Data
			}
			answer := p.subscribeWith(v.Channel, v.Token, data)
			switch v.Result {
			case "success":
				require.Equal(t, "pushy:subscription-success", answer.Event, "%s", answer)
			case "expired":
				require.Equal(t, `pushy:subscription-needauth {"channel":"`+v.Channel+`","reason":"Expired"}`, answer.String())
			case "denied":
				require.Equal(t, `pushy:subscription-failed {"channel":"`+v.Channel+`","reason":"Invalid credentials"}`,
					answer.String())
			default:
				t.Fatal("unknown result")
			}
			p.quiet()
		})
	}
	assert.True(t, sizes[8<<10], "a token of 8 KiB")
	assert.True(t, sizes[8<<10+1] || sizes[8<<10+2], "a token over 8 KiB")
}

// What SignToken signs is what the protocol says, and a Server accepts it.
func TestSignToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		p := connectUser(t, srv, "42")
		now := time.Now().Unix()
		signed, err := pushy.SignToken(peerKey, pushy.Token{
			Channels:     []string{"Private-Room", "private-other"},
			Conn:         p.id,
			User:         "42",
			Expires:      time.Now().Add(time.Minute),
			Data:         map[string]any{"name": "Ann"},
			ClientEvents: true,
		})
		require.NoError(t, err)
		assert.Equal(t, ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["Private-Room","private-other"],"conn":%q,"user":"42",`+
			`"iat":%d,"exp":%d,"data":{"name":"Ann"},"pub":true}`, p.id, now, now+60)), signed)
		f := p.subscribeWith("private-room", signed, "")
		assert.Equal(t, []string{"Ann"}, f.names(t))

		signed, err = pushy.SignToken(peerKey, pushy.Token{Channels: []string{"private-x"}, User: "42"})
		require.NoError(t, err)
		assert.Equal(t, ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["private-x"],"user":"42","iat":%d,"exp":%d}`, now, now+3600)), signed)
		signed, err = pushy.SignToken(peerKey, pushy.Token{Channels: []string{"private-x"}, Conn: p.id})
		require.NoError(t, err)
		assert.Equal(t, ownTokenV2(peerKey, fmt.Sprintf(`{"sub":["private-x"],"conn":%q,"iat":%d}`, p.id, now)), signed)
	})
}

func TestSignTokenRefuses(t *testing.T) {
	t.Parallel()
	conn := "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8"
	channels := []string{"private-x"}
	for says, token := range map[string]pushy.Token{
		"sub: must have 1 to 100 channels, not 0":   {Conn: conn},
		"sub: must have 1 to 100 channels, not 101": {Conn: conn, Channels: make([]string, 101)},
		"sub[1]: must not contain :":                {Conn: conn, Channels: []string{"private-x", "a:b"}},
		"conn or user is needed":                    {Channels: channels},
		"conn: must be a UUID v4":                   {Channels: channels, Conn: "x"},
		"user: must be UTF-8 of at most 128 bytes":  {Channels: channels, User: string(make([]byte, 129))},
		"exp: must be at most 24 hours away":        {Channels: channels, User: "42", Expires: time.Now().Add(25 * time.Hour)},
		"exp: is not in the future":                 {Channels: channels, User: "42", Expires: time.Now().Add(-time.Hour)},
		"presence data must be an object":           {Channels: channels, User: "42", Data: 7},
		"the token has more than 8192 bytes":        {Channels: channels, User: "42", Data: map[string]string{"a": string(make([]byte, 2000))}},
		"json: unsupported type":                    {Channels: channels, User: "42", Data: map[string]any{"a": func() {}}},
	} {
		_, err := pushy.SignToken(peerKey, token)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "pushy: sign token: ")
	}
	_, err := pushy.SignToken("", pushy.Token{Channels: channels, Conn: conn})
	require.ErrorContains(t, err, "empty secret key")
}

// The token of PROTOCOL.md, section 6, is that of the claims there.
func TestProtocolToken(t *testing.T) {
	t.Parallel()
	secret, _, _ := tokenVectors(t)
	section := protocolSection(t, "### Version 2")
	claims := regexp.MustCompile("(?m)^\\{\"sub\".*}$").FindString(section)
	require.NotEmpty(t, claims)
	assert.Contains(t, section, "\n`"+ownTokenV2(secret, claims)+"`.\n")
}

// The log line of a token that another server has signed names the id of its key, with which an
// operator finds that server. Anything else in the place of the id is not logged.
func TestTokenOfAnotherKeyIsLogged(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	srv := startServer(t, pushy.Options{SecretKey: peerKey, Logger: log.Logger()})
	p := connectPeer(t, srv)
	const other = "the secret key of another server"
	signed := ownTokenV2(other, fmt.Sprintf(`{"sub":["private-a"],"conn":%q,"iat":1}`, p.id))
	require.Contains(t, p.subscribeWith("private-a", signed, "").Event, "failed")
	require.Len(t, log.With("a token was refused", "the key id "+hmacHex(other, "pushy2-key-id")[:8]+" is that of no key"), 1)

	log = &testlog.Log{}
	srv = startServer(t, pushy.Options{SecretKey: peerKey, Logger: log.Logger()})
	forged := strings.Replace(signed, hmacHex(other, "pushy2-key-id")[:8], "deadbeeX", 1)
	require.Contains(t, connectPeer(t, srv).subscribeWith("private-a", forged, "").Event, "failed")
	require.Len(t, log.With("a token was refused"), 1)
	assert.Empty(t, log.With("deadbeeX"))
}
