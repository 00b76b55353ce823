package pushy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// documentedKey is the secret key of the test vectors in docs/api.md.
const documentedKey = "a secret of more than sixteen bytes"

// codeBlock is a code block of a page.
type codeBlock struct {
	language, text string
}

func codeBlocks(t *testing.T, page string) (blocks []codeBlock) {
	t.Helper()
	text := pages(t)[page]
	require.NotEmpty(t, text, page)
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, codeBlock{
			language: m[1],
			text:     m[2],
		})
	}
	return blocks
}

// documentedServers starts the servers that docs/api.md speaks of: three that share a broker, with
// Ann, who is user 42, and Bob. The first one has the URL.
func documentedServers(t *testing.T) (srv *pushy.Server, url string) {
	t.Helper()
	cluster := newCluster()
	var urls []string
	for range 3 {
		one, base := serve(t, pushy.Options{
			SecretKey: documentedKey,
			Broker:    lasting(cluster.Broker()),
			Accept:    kickOptions.Accept,
			Channel: func(name string) pushy.ChannelOptions {
				if name == "chat" {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 100}}
				}
				return pushy.ChannelOptions{}
			},
		})
		srv = one
		urls = append(urls, base)
	}
	ann := dial(t, urls[0], false, withHeader("User", "42"))
	bob := dial(t, urls[1], false, withHeader("User", "43"))
	subscribe := func(c *client, channel, name string) {
		data := `{"channel":"` + channel + `"}`
		if name != "" {
			presence := map[string]string{"name": name}
			auth, err := pushy.SignChannel(documentedKey, c.id, channel, presence)
			require.NoError(t, err)
			data = `{"channel":"` + channel + `","auth":"` + auth + `","data":{"name":"` + name + `"}}`
		}
		c.Send(`{"command":"subscribe","id":1,"data":` + data + `}`)
		for !strings.Contains(c.Receive(), `"pushy:subscription-success"`) {
		}
	}
	subscribe(ann, "lobby", "")
	subscribe(ann, "private-one", "Ann")
	subscribe(ann, "private-room", "Ann")
	subscribe(bob, "lobby", "")
	subscribe(bob, "private-room", "Bob")
	require.NoError(t, srv.Publish(t.Context(), "chat", "said", "the first event"))
	return srv, urls[0]
}

// normalized replaces what differs in each run: ids, times, and the epochs of positions.
func normalized(text string) string {
	for _, rule := range []struct{ pattern, with string }{
		{`"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"`, `"connection"`},
		{`"[0-9a-f]{32}"`, `"member"`},
		{`"[0-9a-f]{16}"`, `"node"`},
		{`\b1\d{12}\b`, `1000`},
		{`\b1\d{9}\b`, `1`},
		{`"position":"\w+\.`, `"position":"epoch.`},
		{`"epoch":"\w+"`, `"epoch":"epoch"`},
	} {
		text = regexp.MustCompile(rule.pattern).ReplaceAllString(text, rule.with)
	}
	return text
}

// documentedShell runs lines of a shell after the function of docs/api.md that sends signed requests.
func documentedShell(t *testing.T, function, url, lines string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script := strings.ReplaceAll(function, "http://127.0.0.1:8080", url) + lines
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Env = append(os.Environ(), "PUSHY_SECRET_KEY="+documentedKey)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", lines, out)
	return string(out)
}

// Every request in docs/api.md is sent, in the order of the page, and has the answer that follows it.
// Issue 14, delivers 7.
func TestDocumentedCalls(t *testing.T) {
	t.Parallel()
	_, url := documentedServers(t)
	blocks := codeBlocks(t, "docs/api.md")
	function := docsBlock(t, "docs/api.md", "sh", "pushy() {")
	called := map[string]bool{}
	for i, block := range blocks {
		words := strings.Fields(block.text)
		if block.language != "sh" || words[0] != "pushy" {
			continue
		}
		called[words[1]] = true
		require.Equal(t, "json", blocks[i+1].language, "no answer follows %s", block.text)
		require.True(t, json.Valid([]byte(blocks[i+1].text)), blocks[i+1].text)
		for range map[bool]int{false: 1, true: 2}[strings.HasSuffix(strings.TrimSpace(block.text), "order-17")] {
			got := documentedShell(t, function, url, block.text)
			assert.JSONEq(t, normalized(blocks[i+1].text), normalized(got), block.text)
		}
	}
	source, err := os.ReadFile("api.go")
	require.NoError(t, err)
	calls := regexp.MustCompile(`(?m)^\t\t"(\w+)": +s\.\w+Call\(\),$`).FindAllStringSubmatch(string(source), -1)
	assert.Len(t, calls, len(called))
	for _, call := range calls {
		assert.True(t, called[call[1]], "docs/api.md has no example of %s", call[1])
		assert.Contains(t, pages(t)["docs/api.md"], "\n## "+call[1]+"\n")
	}
}

// The body and the id may have any content that JSON and the protocol allow.
func TestDocumentedShellFunction(t *testing.T) {
	t.Parallel()
	_, url := documentedServers(t)
	function := docsBlock(t, "docs/api.md", "sh", "pushy() {")
	got := documentedShell(t, function, url, "pushy publish '{\"events\":[\n\t"+
		`{"channels":["lobby"],"event":"it\u0027s","data":"@ü\n\\\""}`+"\n]}' -id_1\npushy bans\n")
	assert.Equal(t, `{"events":[{"channels":{"lobby":{"received":true}}}]}`+"\n"+`{"bans":[]}`, strings.TrimSpace(got))
}

// The snippets of other languages make the documented header, which the server accepts.
func TestDocumentedSignatures(t *testing.T) {
	t.Parallel()
	want := strings.TrimSpace(docsBlock(t, "docs/api.md", "text", "Pushy-Signature: v2 "))
	body := `{"events":[{"channels":["lobby","private-room"],"event":"news","data":{"text":"Hello"}}],"count":true}`
	require.Contains(t, pages(t)["docs/api.md"], "the body `"+body+"`")
	srv := startServer(t, pushy.Options{SecretKey: documentedKey, Broker: newCluster().Broker()})
	srv.SetClock(func() time.Time { return time.Unix(triggerNow, 0) })
	w := signedCall{body: body, header: strings.TrimPrefix(want, "Pushy-Signature: ")}.do(srv)
	assert.Equal(t, http.StatusOK, w.Code, w.Body)
	for language, program := range map[string]struct {
		command     []string
		before, end string
	}{
		"php": {
			command: []string{"php", "-r"},
			before:  "$secret = '" + documentedKey + "'; $time = 1700000000; $id = 'order-17'; $body = '" + body + "';",
			end:     "echo $header;",
		},
		"python": {
			command: []string{"python3", "-c"},
			before: "import hashlib, hmac\nsecret, time, id = '" + documentedKey + "', 1700000000, 'order-17'\n" +
				"body = '" + body + "'\n",
			end: "print(header)",
		},
		"js": {
			command: []string{"node", "--input-type=module", "-e"},
			before: "import { createHmac } from 'node:crypto'; const secret = '" + documentedKey + "', time = 1700000000, " +
				"id = 'order-17', body = '" + body + "';",
			end: "console.log(header)",
		},
	} {
		code := program.before + docsBlock(t, "docs/api.md", language, "pushy2-request") + program.end
		out, err := exec.CommandContext(t.Context(), program.command[0], append(program.command[1:], code)...).CombinedOutput()
		require.NoError(t, err, "%s: %s", language, out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), language)
	}
}

// The PHP of PROTOCOL.md, section 6, makes the documented token.
func TestDocumentedToken(t *testing.T) {
	t.Parallel()
	section := protocolSection(t, "### Version 2")
	claims := regexp.MustCompile("```json\n(.*)\n```").FindStringSubmatch(section)
	want := regexp.MustCompile("`(v2\\.80756b1b\\.[^`]+)`").FindStringSubmatch(section)
	require.NotNil(t, claims)
	require.NotNil(t, want)
	code := "$secret = '" + documentedKey + "'; $values = json_decode('" + claims[1] + "');" +
		docsBlock(t, "PROTOCOL.md", "php", "pushy2-token") + "echo $token;"
	out, err := exec.CommandContext(t.Context(), "php", "-r", code).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, want[1], string(out))
}
