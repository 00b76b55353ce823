package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runProgram runs it without serving.
func runProgram(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	p := program{getenv: func(string) string { return "" }, stdout: &out, stderr: &err}
	status = p.run(args)
	return status, out.String(), err.String()
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	delay := "a whole number of milliseconds from 1 to 86400000"
	tests := []struct {
		name string
		text string
		want string // after the file's name
	}{
		{"empty file", ``, `:1:1: the JSON is not finished`},
		{"blank file", " \n ", `:2:2: the JSON is not finished`},
		{"not finished", "{\n\"port\": 1", `:2:10: the JSON is not finished`},
		{"not finished in a text", `{"secretKey":"abc`, `:1:18: the JSON is not finished`},
		{"comment", "{\n  // the port\n  \"port\": 1}", `:2:3: not JSON from here on: comments are not allowed`},
		{"hash comment", "{\n  # the port\n  \"port\": 1}", `:2:3: not JSON from here on: comments are not allowed`},
		{"comment at the end", `{"secretKey":"s"} // end`, `:1:19: not JSON from here on: comments are not allowed`},
		{"garbage at the end", "{\"secretKey\":\"s\"}\nx", `:2:1: not JSON from here on`},
		{"second object", `{"secretKey":"s"}{}`, `:1:18: not JSON from here on`},
		{"comma at the end", "{\"secretKey\":\"é\",\n}", `:2:1: not JSON from here on`},
		{"column in characters", `{"secretKey":"ééé" x}`, `:1:20: not JSON from here on`},
		{"byte order mark", "\ufeff{}", `:1:1: not JSON from here on`},
		{"not UTF-8", "{\"secretKey\":\"\xff\"}", `:1:15: not UTF-8`},
		{"array", `[]`, `:1:1: must be an object`},
		{"null", `null`, `:1:1: must be an object`},

		{"unknown key", "{\n  \"secretKey\": \"s\",\n  \"prot\": 1}", `:3:3: unknown key prot`},
		{"capital key", `{"Port":1,"secretKey":"s"}`, `:1:2: unknown key Port`},
		{"lower-case key", `{"secretkey":"s"}`, `:1:2: unknown key secretkey`},
		{"key with a blank", `{"secretKey ":"s"}`, `:1:2: unknown key "secretKey "`},
		{"key with a newline", `{"secretKey\n":"s"}`, `:1:2: unknown key "secretKey\n"`},
		{"empty key", `{"":"s"}`, `:1:2: unknown key ""`},
		{"long key", `{"` + strings.Repeat("k", 100) + `":1}`, `:1:2: unknown key "` + strings.Repeat("k", 40) + `…"`},
		{"path as a key", `{"sockjs.prefix":"/x","secretKey":"s"}`, `:1:2: unknown key sockjs.prefix`},
		{"unknown limit", `{"limits":{"conns":1}}`, `:1:12: unknown key limits.conns`},
		{"capital limit", `{"limits":{"Connections":1}}`, `:1:12: unknown key limits.Connections`},
		{"repeated key", `{"port":1, "port":1}`, `:1:12: port is given twice`},
		{"repeated in other spelling", `{"port":1, "\u0070ort":1}`, `:1:12: port is given twice`},
		{"repeated in sockjs", `{"sockjs":{"a":1,"a":1}}`, `:1:18: sockjs a is given twice`},

		{"no secret", `{}`, `: secretKey is missing; it can also be given in PUSHY_SECRET_KEY`},
		{"empty secret", `{"secretKey":""}`, `: secretKey is missing; it can also be given in PUSHY_SECRET_KEY`},
		{"secret a number", `{"secretKey":12345678}`, `:1:14: secretKey must be a string`},
		{"secret null", `{"secretKey":null}`, `:1:14: secretKey must be a string`},
		{"old keys a string", `{"oldSecretKeys":"s"}`, `:1:18: oldSecretKeys must be an array of strings that are not empty`},
		{"old key empty", `{"oldSecretKeys":["a",""]}`, `:1:18: oldSecretKeys must be an array of strings that are not empty`},
		{"port too high", `{"port":65536}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port negative", `{"port":-1}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port fraction", `{"port":80.5}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port exponent", `{"port":8e3}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port empty text", `{"port":""}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port text", `{"port":"http"}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port text with blank", `{"port":" 80"}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port text with sign", `{"port":"+80"}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port hexadecimal", `{"port":"0x50"}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port null", `{"port":null}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"port true", `{"port":true}`, `:1:9: port must be a whole number from 0 to 65535, also as a string`},
		{"host a number", `{"host":1}`, `:1:9: host must be a string: an address or a name, without a port`},
		{"host with a port", `{"host":"127.0.0.1:80"}`, `:1:9: host must be a string: an address or a name, without a port`},
		{"host in brackets", `{"host":"[::1]"}`, `:1:9: host must be a string: an address or a name, without a port`},
		{"ssl text", `{"ssl":"true"}`, `:1:8: ssl must be true or false`},
		{"ssl number", `{"ssl":1}`, `:1:8: ssl must be true or false`},
		{"cert null", `{"cert":null}`, `:1:9: cert must be the name of a file`},
		{"cert empty", `{"cert":""}`, `:1:9: cert must be the name of a file`},
		{"key a number", `{"key":1}`, `:1:8: key must be the name of a file`},
		{"ssl without cert", `{"secretKey":"s","ssl":true,"key":"k"}`, `: cert is missing: ssl needs it`},
		{"ssl without key", `{"secretKey":"s","ssl":true,"cert":"c"}`, `: key is missing: ssl needs it`},
		{"origins a text", `{"origins":"*"}`, `:1:12: origins must be an array of origins such as "https://app.example.com", or "*"`},
		{"origins null", `{"origins":null}`, `:1:12: origins must be an array of origins such as "https://app.example.com", or "*"`},
		{"origins of null", `{"origins":[null]}`, `:1:12: origins must be an array of origins such as "https://app.example.com", or "*"`},
		{"origins of hosts", `{"origins":["app.example.com"]}`, `:1:12: origins: "app.example.com": has no scheme: write it like "https://app.example.com"`},
		{"origins with a path", `{"origins":["https://a.example/x"]}`, `:1:12: origins: "https://a.example/x": an origin ends after the host and port: without a path, query or fragment`},
		{"trustedProxies a string", `{"trustedProxies":"10.0.0.0/8"}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies null", `{"trustedProxies":null}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies true", `{"trustedProxies":true}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies a number of hops", `{"trustedProxies":[1]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies of null", `{"trustedProxies":["10.0.0.1",null]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies of names", `{"trustedProxies":["proxy.example"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies with a port", `{"trustedProxies":["10.0.0.1:80"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies any", `{"trustedProxies":["*"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies everybody", `{"trustedProxies":["0.0.0.0/0"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies everybody, IPv6", `{"trustedProxies":["::/0"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies IPv4 as IPv6", `{"trustedProxies":["::ffff:10.0.0.0/104"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"trustedProxies with a zone", `{"trustedProxies":["fe80::1%eth0"]}`, `:1:19: trustedProxies must be ` + proxiesRule},
		{"limits.perAddress", `{"limits":{"perAddress":"5"}}`, `:1:25: limits.perAddress must be a whole number`},
		{"drainDelay negative", `{"drainDelay":"-1s"}`, `:1:15: drainDelay must be a string such as "5s", from "0s" to "1h"`},
		{"drainDelay too long", `{"drainDelay":"61m"}`, `:1:15: drainDelay must be a string such as "5s", from "0s" to "1h"`},
		{"drainDelay a number", `{"drainDelay":5}`, `:1:15: drainDelay must be a string such as "5s", from "0s" to "1h"`},
		{"drainTimeout zero", `{"drainTimeout":"0s"}`, `:1:17: drainTimeout must be a string such as "15s", from "1s" to "1h"`},
		{"drainTimeout too short", `{"drainTimeout":"999ms"}`, `:1:17: drainTimeout must be a string such as "15s", from "1s" to "1h"`},
		{"drainTimeout too long", `{"drainTimeout":"2h"}`, `:1:17: drainTimeout must be a string such as "15s", from "1s" to "1h"`},
		{"repeatWindow too short", `{"repeatWindow":"10m59s"}`, `:1:17: repeatWindow must be a string such as "15m", from "11m" to "20m"`},
		{"repeatWindow too long", `{"repeatWindow":"21m"}`, `:1:17: repeatWindow must be a string such as "15m", from "11m" to "20m"`},
		{"repeatWindow zero", `{"repeatWindow":"0s"}`, `:1:17: repeatWindow must be a string such as "15m", from "11m" to "20m"`},
		{"repeatWindow negative", `{"repeatWindow":"-15m"}`, `:1:17: repeatWindow must be a string such as "15m", from "11m" to "20m"`},
		{"repeatWindow a number", `{"repeatWindow":900}`, `:1:17: repeatWindow must be a string such as "15m", from "11m" to "20m"`},
		{"prefix empty", `{"prefix":""}`, `:1:11: prefix must be a plain path that begins with a slash`},
		{"prefix without slash", `{"prefix":"pushy"}`, `:1:11: prefix must be a plain path that begins with a slash`},
		{"prefix with a query", `{"prefix":"/a?b"}`, `:1:11: prefix must be a plain path that begins with a slash`},
		{"prefix a number", `{"prefix":1}`, `:1:11: prefix must be a plain path that begins with a slash`},

		{"sockjs an array", `{"sockjs":[]}`, `:1:11: sockjs must be an object`},
		{"sockjs null", `{"sockjs": null}`, `:1:12: sockjs must be an object`},
		{"limits a number", `{"limits":5}`, `:1:11: limits must be an object`},
		{"sockjs.prefix", `{"sockjs":{"prefix":"[/]x"}}`, `:1:21: sockjs.prefix must be a plain path that begins with a slash`},
		{"sockjs.prefix empty", `{"sockjs":{"prefix":""}}`, `:1:21: sockjs.prefix must be a plain path that begins with a slash`},
		{"sockjs.websocket", `{"sockjs":{"websocket":"yes"}}`, `:1:24: sockjs.websocket must be true or false`},
		{"sockjs.websocket null", `{"sockjs":{"websocket":null}}`, `:1:24: sockjs.websocket must be true or false`},
		{"sockjs.jsessionid", `{"sockjs":{"jsessionid":"JSESSIONID"}}`, `:1:25: sockjs.jsessionid must be true or false`},
		{"sockjs.heartbeat_delay zero", `{"sockjs":{"heartbeat_delay":0}}`, `:1:30: sockjs.heartbeat_delay must be ` + delay},
		{"sockjs.heartbeat_delay text", `{"sockjs":{"heartbeat_delay":"25"}}`, `:1:30: sockjs.heartbeat_delay must be ` + delay},
		{"sockjs.heartbeat_delay fraction", `{"sockjs":{"heartbeat_delay":2.5}}`, `:1:30: sockjs.heartbeat_delay must be ` + delay},
		{"sockjs.heartbeat_delay too long", `{"sockjs":{"heartbeat_delay":86400001}}`, `:1:30: sockjs.heartbeat_delay must be ` + delay},
		{"sockjs.disconnect_delay", `{"sockjs":{"disconnect_delay":-5}}`, `:1:31: sockjs.disconnect_delay must be ` + delay},
		{"sockjs.response_limit zero", `{"sockjs":{"response_limit":0}}`, `:1:29: sockjs.response_limit must be a number of bytes above 0, or a string such as "128K"`},
		{"sockjs.response_limit unit", `{"sockjs":{"response_limit":"128KB"}}`, `:1:29: sockjs.response_limit must be a number of bytes above 0, or a string such as "128K"`},
		{"sockjs.response_limit huge", `{"sockjs":{"response_limit":99999999999}}`, `:1:29: sockjs.response_limit must be a number of bytes above 0, or a string such as "128K"`},
		{"sockjs.response_limit true", `{"sockjs":{"response_limit":true}}`, `:1:29: sockjs.response_limit must be a number of bytes above 0, or a string such as "128K"`},
		{"sockjs.sockjs_url", `{"sockjs":{"sockjs_url":"javascript:alert(1)"}}`, `:1:25: sockjs.sockjs_url must be the URL of a script`},
		{"sockjs.sockjs_url empty", `{"sockjs":{"sockjs_url":""}}`, `:1:25: sockjs.sockjs_url must be the URL of a script`},
		{"sockjs.sockjs_url a number", `{"sockjs":{"sockjs_url":1}}`, `:1:25: sockjs.sockjs_url must be the URL of a script`},
		{"limits.maxBuffered", `{"limits":{"maxBuffered":"1M"}}`, `:1:26: limits.maxBuffered must be a whole number`},
	}
	for _, name := range []string{"connections", "channels", "members", "presenceBytes", "messageBytes", "triggerBytes", "commandRate", "commandBurst", "connBuffer"} {
		tests = append(tests, struct{ name, text, want string }{
			"limits." + name, "{\"limits\":{\n\"" + name + "\":1.5}}", `:2:` + strconv.Itoa(len(name)+4) + `: limits.` + name + ` must be a whole number`,
		})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := writeConfig(t, test.text)
			status, stdout, stderr := runProgram(t, file)
			assert.Equal(t, "pushy-server: "+file+test.want+"\n", stderr)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
		})
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := newCertificate(t, dir, "good", 1)
	other := newCertificate(t, dir, "other", 2)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "broken.pem"), []byte("broken"), 0o600))
	tests := []struct {
		name      string
		cert, key string
		want      string
	}{
		{"no cert", "no.pem", good.key, "cert: open " + dir + "/no.pem: no such file or directory"},
		{"no key", good.cert, "no.pem", "key: open " + dir + "/no.pem: no such file or directory"},
		{"broken cert", "broken.pem", good.key, "cert and key: " + dir + "/broken.pem and " + dir + "/good.key: tls: failed to find any PEM data in certificate input"},
		{"key of another", good.cert, other.key, "cert and key: " + dir + "/good.pem and " + dir + "/other.key: tls: private key does not match public key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, strings.ReplaceAll(test.name, " ", "-")+".json")
			text := `{"secretKey":"` + secret + `","ssl":true,"cert":"` + test.cert + `","key":"` + test.key + `"}`
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			for _, args := range [][]string{{file}, {"-check", file}} {
				status, stdout, stderr := runProgram(t, args...)
				assert.Equal(t, "pushy-server: "+file+": "+test.want+"\n", stderr)
				assert.Equal(t, 2, status)
				assert.Empty(t, stdout)
			}
		})
	}
	t.Run("no config", func(t *testing.T) {
		t.Parallel()
		status, _, stderr := runProgram(t, dir+"/no.json")
		assert.Equal(t, "pushy-server: "+dir+"/no.json: no such file or directory\n", stderr)
		assert.Equal(t, 2, status)
	})
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		status, _, stderr := runProgram(t, dir)
		assert.Equal(t, "pushy-server: "+dir+": is a directory\n", stderr)
		assert.Equal(t, 2, status)
	})
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	give := "pushy-server: give one config file: pushy-server [-check] config.json (-h explains)\n"
	tests := []struct {
		name   string
		args   []string
		stderr string
	}{
		{"nothing", nil, give},
		{"two files", []string{"a.json", "b.json"}, give},
		{"check alone", []string{"-check"}, give},
		{"unknown flag", []string{"-foo", "a.json"}, "pushy-server: flag provided but not defined: -foo\n"},
		{"unknown flag after the file", []string{"a.json", "-foo"}, "pushy-server: flag provided but not defined: -foo\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := runProgram(t, test.args...)
			assert.Equal(t, test.stderr, stderr)
			assert.Empty(t, stdout)
			assert.Equal(t, 2, status)
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"-h", "-help", "--help"} {
		status, stdout, stderr := runProgram(t, flag)
		assert.Equal(t, 0, status)
		assert.Equal(t, manual(), stdout)
		assert.Empty(t, stderr)
	}
	status, stdout, stderr := runProgram(t, "-version")
	assert.Equal(t, 0, status)
	assert.Regexp(t, `^pushy-server \S+ go1\.\S+( \S+)*\n$`, stdout)
	assert.Empty(t, stderr)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newCertificate(t, dir, "own", 1)
	tests := []struct {
		name string
		text string
		want string
	}{
		{"defaults", ``, ":8123 (http), prefix /pushy, SockJS /pushy/socket, origins: any"},
		{"all", `,"port":0,"host":"::1","ssl":true,"cert":"own.pem","key":"own.key","prefix":"/rt","sockjs":{"prefix":"/ws"},"origins":["https://a.example","https://b.example"]`,
			"[::1]:0 (https), prefix /rt, SockJS /ws, origins: same, https://a.example, https://b.example"},
		{"same origin", `,"origins":[]`, ":8123 (http), prefix /pushy, SockJS /pushy/socket, origins: same"},
		{"certificate by its whole path", `,"ssl":true,"cert":"` + dir + `/own.pem","key":"` + dir + `/own.key"`,
			":8123 (https), prefix /pushy, SockJS /pushy/socket, origins: any"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, strings.ReplaceAll(test.name, " ", "-")+".json")
			require.NoError(t, os.WriteFile(file, []byte(`{"secretKey":"`+secret+`"`+test.text+`}`), 0o600))
			for _, args := range [][]string{{"-check", file}, {file, "-check"}} {
				status, stdout, stderr := runProgram(t, args...)
				assert.Equal(t, 0, status)
				assert.Equal(t, file+": ok: would listen on "+test.want+"\n", stdout)
				assert.Empty(t, stderr)
			}
		})
	}
	t.Run("warnings are shown", func(t *testing.T) {
		t.Parallel()
		status, _, stderr := runProgram(t, "-check", "testdata/original.json")
		assert.Equal(t, 0, status)
		assert.Equal(t, 2, strings.Count(stderr, `"delay under 1000 read as seconds; write milliseconds"`), stderr)
	})
}

// Issue 11, number 11: -check shows all that the start would warn of, by the config's keys.
func TestCheckWarnsAsTheStartDoes(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, `{"secretKey":"short","limits":{"triggerBytes":900000,"connBuffer":70000}}`)
	status, stdout, stderr := runProgram(t, "-check", file)
	assert.Equal(t, exitOK, status)
	assert.Contains(t, stdout, file+": ok: ")
	assert.Contains(t, stderr, "the secret key is under 16 bytes")
	assert.Contains(t, stderr, `"small":"limits.connBuffer"`)
	assert.Contains(t, stderr, `"because of":"limits.triggerBytes"`)
	assert.Contains(t, stderr, "raise limits.connBuffer or lower limits.triggerBytes")
	assert.NotContains(t, stderr, "Limits.")
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	file := writeConfig(t, `{"secretKey":"`+secret+`","host":"127.0.0.1","port":"`+port+`"}`)
	status, stdout, stderr := runProgram(t, file)
	assert.Equal(t, "pushy-server: cannot listen: listen tcp 127.0.0.1:"+port+": bind: address already in use\n", stderr)
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
}

func TestLogForm(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{true, false} {
		var b bytes.Buffer
		newLogger(&b, terminal).Info("hello", slog.Int("n", 1))
		if terminal {
			assert.Regexp(t, `^time=\S+ level=INFO msg=hello n=1\n$`, b.String())
		} else {
			assert.Regexp(t, `^\{"time":"[^"]+","level":"INFO","msg":"hello","n":1\}\n$`, b.String())
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer file.Close()
	assert.False(t, isTerminal(file), "a file")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	assert.False(t, isTerminal(w), "a pipe")
}

// TestExitStatuses is about the program itself: what run returns must arrive.
func TestExitStatuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"help", []string{"-h"}, 0},
		{"check", []string{"-check", "testdata/original.json"}, 0},
		{"bad config", []string{writeConfig(t, `{"port":true}`)}, 2},
		{"bad flag", []string{"-foo"}, 2},
		{"cannot listen", []string{writeConfig(t, `{"secretKey":"s","host":"192.0.2.1"}`)}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := newProgram(t, test.args...)
			out, err := cmd.CombinedOutput()
			require.NotNil(t, cmd.ProcessState, "%v", err)
			assert.Equal(t, test.want, cmd.ProcessState.ExitCode(), "%s", out)
		})
	}
}
