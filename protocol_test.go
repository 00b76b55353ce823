package pushy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

const (
	answerBogus      = `pushy:error {"message":"Bogus message recieved","code":"100"}`
	answerUnknown    = `pushy:error {"message":"Unknown command","code":"200"}`
	answerNoChannel  = `pushy:error {"message":"No channel specified","code":"300"}`
	answerBadChannel = `pushy:error {"message":"Invalid channel name","code":"301"}`
	answerNeedAuth   = `pushy:subscription-needauth {"channel":"private-x"}`
	answerBadAuth    = `pushy:subscription-failed {"channel":"private-x","reason":"Invalid credentials"}`
)

// Every row of PROTOCOL.md, section 3, on a fresh connection. An answer of ""
// is none.
func TestCommandAnswers(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	other := connectPeer(t, srv)
	other.subscribe("taken", "")
	sub := func(data string) string { return `{"command":"subscribe","data":` + data + `}` }
	unsub := func(data string) string { return `{"command":"unsubscribe","data":` + data + `}` }
	for _, c := range []struct{ name, send, answer string }{
		{"notJSON", `{`, answerBogus},
		{"empty", ``, answerBogus},
		{"array", `[]`, answerBogus},
		{"text", `"x"`, answerBogus},
		{"null", `null`, answerBogus},
		{"neitherKey", `{}`, answerBogus},
		{"bothKeys", `{"command":"subscribe","event":"x"}`, answerBogus},
		{"nullEventIsAbsent", `{"command":"x","event":null}`, answerUnknown},
		{"onlyNullEvent", `{"event":null}`, answerBogus},
		{"commandNumber", `{"command":1}`, answerBogus},
		{"commandNull", `{"command":null}`, answerBogus},
		{"commandNullWithEvent", `{"command":null,"event":"x"}`, answerBogus},
		{"commandObject", `{"command":{}}`, answerBogus},
		{"otherCaseOfKey", `{"Command":"subscribe"}`, answerBogus},
		{"eventAlone", `{"event":"x","channel":"taken","data":1}`, ""},
		{"eventNumber", `{"event":1}`, ""},
		{"repeatedKeyCountsLast", `{"command":1,"command":"x"}`, answerUnknown},
		{"repeatedKeyCountsLastToo", `{"command":"x","command":1}`, answerBogus},
		{"emptyCommand", `{"command":""}`, answerUnknown},
		{"prototypeName", `{"command":"constructor"}`, answerUnknown},
		{"nonASCIICase", `{"command":"ſubscribe"}`, answerUnknown},
		{"anyASCIICase", `{"command":"SuBsCRIBE"}`, answerNoChannel},
		{"idText", `{"command":"x","id":"é\u0041"}`, `pushy:error {"message":"Unknown command","code":"200","id":"é\u0041"}`},
		{"idNumber", `{"command":"x","id":-1.50e3}`, `pushy:error {"message":"Unknown command","code":"200","id":-1.50e3}`},
		{"idObject", `{"command":"x","id":{}}`, answerUnknown},
		{"idNull", `{"command":"x","id":null}`, answerUnknown},
		{"idBool", `{"command":"x","id":true}`, answerUnknown},
		{"idLastCounts", `{"command":"x","id":1,"id":[]}`, answerUnknown},
		{"idOfBogus", `{"command":1,"id":1}`, `pushy:error {"message":"Bogus message recieved","code":"100","id":1}`},
		{"idInNeedAuth", `{"command":"subscribe","id":1,"data":{"channel":"private-x"}}`, `pushy:subscription-needauth {"channel":"private-x","id":1}`},
		{"dataMissing", `{"command":"subscribe"}`, answerNoChannel},
		{"dataNull", sub(`null`), answerNoChannel},
		{"dataText", sub(`"x"`), answerNoChannel},
		{"dataArray", sub(`["channel"]`), answerNoChannel},
		{"channelMissing", sub(`{}`), answerNoChannel},
		{"channelEmpty", sub(`{"channel":""}`), answerNoChannel},
		{"channelNull", sub(`{"channel":null}`), answerNoChannel},
		{"channelNumber", sub(`{"channel":7}`), answerNoChannel},
		{"channelArray", sub(`{"channel":["x"]}`), answerNoChannel},
		{"channelRepeated", sub(`{"channel":"x","channel":7}`), answerNoChannel},
		{"channelNotAllowed", sub(`{"channel":"a:b"}`), answerBadChannel},
		{"channelLoneSurrogate", sub(`{"channel":"a\ud800"}`), answerBadChannel},
		{"channelTooLong", sub(`{"channel":"` + strings.Repeat("x", 201) + `"}`), answerBadChannel},
		{"nameBeforeAuth", sub(`{"channel":"private-a:b"}`), answerBadChannel},
		{"authAbsent", sub(`{"channel":"private-x"}`), answerNeedAuth},
		{"authEmpty", sub(`{"channel":"Private-X","auth":""}`), answerNeedAuth},
		{"authBlank", sub(`{"channel":"private-x","auth":" \t "}`), answerNeedAuth},
		{"authNumber", sub(`{"channel":"private-x","auth":1}`), answerNeedAuth},
		{"authNull", sub(`{"channel":"private-x","auth":null}`), answerNeedAuth},
		{"authWrong", sub(`{"channel":"private-x","auth":"x"}`), answerBadAuth},
		{"authBeforeData", sub(`{"channel":"private-x","auth":"x","data":7}`), answerBadAuth},
		{"unsubDataMissing", `{"command":"unsubscribe"}`, answerNoChannel},
		{"unsubChannelNumber", unsub(`{"channel":7}`), answerNoChannel},
		{"unsubNotAllowed", unsub(`{"channel":"{"}`), answerBadChannel},
		{"unsubUnknown", unsub(`{"channel":"nowhere"}`), `pushy:error {"message":"Channel not found","code":"404"}`},
		{"unsubPrototype", unsub(`{"channel":"__proto__"}`), `pushy:error {"message":"Channel not found","code":"404"}`},
		{"unsubNotMember", unsub(`{"channel":"TAKEN"}`), `pushy:error {"message":"Not subscribed to this channel","code":"403"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := connectPeer(t, srv)
			p.send(c.send)
			if c.answer != "" {
				p.expect(c.answer)
			}
			p.quiet()
		})
	}
}

func TestPresenceDataAnswers(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	failed := func(reason string) string {
		return `pushy:subscription-failed {"channel":"private-x","reason":"` + reason + `"}`
	}
	for _, c := range []struct{ name, data, member, failed string }{
		{"object", `{"b":1,"a":2}`, `{"b":1,"a":2,`, ""},
		{"text", `"{\"a\":1}"`, `{"a":1,`, ""},
		{"canonical", `{"b":1.0,"1":{},"b":-0}`, `{"1":{},"b":0,`, ""},
		{"emptyArray", `[]`, `{`, ""},
		{"emptyArrayText", `"[]"`, `{`, ""},
		{"ownFixedKeys", `{"idle":true,"x":1,"memberId":"mine","subscribed":0}`, `{"idle":false,"x":1,"memberId":"`, ""},
		{"prototypeKey", `{"__proto__":1}`, `{"__proto__":1,`, ""},
		{"array", `[1]`, "", failed("Invalid presence data")},
		{"number", `7`, "", failed("Invalid presence data")},
		{"emptyText", `""`, "", failed("Invalid presence data")},
		{"nullText", `"null"`, "", failed("Invalid presence data")},
		{"brokenText", `"{"`, "", failed("Invalid presence data")},
		{"true", `true`, "", failed("Invalid presence data")},
		{"tooDeep", `{"a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, "", failed("Invalid presence data")},
		{"fits", `{"a":"` + strings.Repeat("x", 4<<10-8) + `"}`, `{"a":"xxxx`, ""},
		{"tooLarge", `{"a":"` + strings.Repeat("x", 4<<10-7) + `"}`, "", failed("Presence data too large")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := connectPeer(t, srv)
			defer p.Close(1000, "")
			auth := ownToken(p.id, "private-x", c.data)
			answer := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-x","auth":%q,"data":%s}}`, auth, c.data))
			if c.failed != "" {
				require.Equal(t, c.failed, answer.String())
				return
			}
			require.Equal(t, "pushy:subscription-success", answer.Event, "%s", answer)
			var data struct{ Presence []json.RawMessage }
			require.NoError(t, json.Unmarshal(answer.Data, &data))
			own := string(data.Presence[len(data.Presence)-1])
			assert.True(t, strings.HasPrefix(own, c.member), "member %s", own)
			p.ask(`{"command":"unsubscribe","data":{"channel":"private-x"}}`)
		})
	}
}

func TestSubscribeTwiceAndLimits(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Limits: pushy.Limits{Channels: 2, Members: 2}})
	p := connectPeer(t, srv)
	p.subscribe("News", "")
	p.send(`{"command":"subscribe","id":"i","data":{"channel":"NEWS"}}`)
	p.expect(`pushy:subscription-failed {"channel":"news","reason":"Already subscribed to this channel","id":"i"}`)
	p.subscribe("private-x", "")
	p.send(`{"command":"subscribe","data":{"channel":"third"}}`)
	p.expect(`pushy:error {"message":"Too many channels","code":"302"}`)
	p.send(`{"command":"subscribe","data":{"channel":"news"}}`)
	p.expect(`pushy:subscription-failed {"channel":"news","reason":"Already subscribed to this channel"}`)
	// Bad data comes before "already subscribed".
	p.send(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-x","auth":%q,"data":7}}`, ownToken(p.id, "private-x", "7")))
	p.expect(`pushy:subscription-failed {"channel":"private-x","reason":"Invalid presence data"}`)

	full := `pushy:subscription-failed {"channel":"private-x","reason":"Channel is full"}`
	q, r := connectPeer(t, srv), connectPeer(t, srv)
	q.subscribe("private-x", "")
	s := connectPeer(t, srv)
	s.subscribe("private-x", "") // presence is off: no limit
	r.send(subscribeText(t, r.id, "private-x", `{"a":1}`))
	r.expect(full)
	r.quiet()
	r.subscribe("private-x", "")
	for _, one := range []*peer{p, q, s} {
		one.send(`{"command":"unsubscribe","data":{"channel":"private-x"}}`)
		one.expect(`pushy:subscription-end {"channel":"private-x"}`)
		one.quiet() // the command is over: the member is out of the list too
	}
	s.subscribe("private-x", `{"a":1}`)
	require.Equal(t, "pushy:presence-sync", r.next().Event)
	require.Equal(t, "pushy:presence-add", r.next().Event)
	q.send(subscribeText(t, q.id, "private-x", ""))
	q.expect(full) // presence is on: for those without data too
	assert.Empty(t, q.conn(srv).Channels())
	ch, _ := srv.Channels().Lookup("private-x")
	members, on := ch.Presence()
	assert.True(t, on)
	assert.Len(t, members, 2)
}

func TestHostCommands(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	srv.RegisterCommand("Boom", func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) { panic("boom") })
	srv.RegisterCommand("echo", func(s *pushy.Server, c *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		assert.Same(t, srv, s)
		if data == nil {
			data = json.RawMessage(`"none"`)
		}
		assert.NoError(t, c.Reply("echoed", map[string]any{"data": data}))
	})
	srv.RegisterCommand("refuse", func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
		assert.NoError(t, c.ReplyError(&pushy.Error{Code: "777", Message: "no <b>"}))
	})
	// A built-in may be replaced once, and called from what replaces it.
	srv.HandleCommand("SUBSCRIBE", func(r *pushy.Request) error {
		assert.NoError(t, r.Conn.Send("first", nil))
		r.Builtin()
		return nil
	})
	p := connectPeer(t, srv)
	p.send(`{"command":"BOOM","id":1}`)
	p.expect(`pushy:error {"message":"Internal error","code":"500","id":1}`)
	p.send(`{"command":"echo"}`)
	p.expect(`echoed {"data":"none"}`)
	p.send(`{"command":"echo","data":null,"id":"q"}`)
	p.expect(`echoed {"data":null,"id":"q"}`)
	p.send(`{"command":"refuse","id":2}`)
	p.expect(`pushy:error {"message":"no <b>","code":"777","id":2}`)
	p.send(`{"command":"subscribe","data":{"channel":"news"},"id":3}`)
	p.expect(`first null`)
	success := p.next()
	assert.Equal(t, "pushy:subscription-success", success.Event)
	assert.Contains(t, string(success.Data), `"id":3}`)

	nothing := func(*pushy.Server, *pushy.Conn, json.RawMessage, *pushy.Channels) {}
	for _, c := range []struct {
		name, command string
		run           pushy.CommandFunc
	}{
		{"takenInOtherCase", "ECHO", nothing},
		{"builtInTwice", "subscribe", nothing},
		{"empty", "", nothing},
		{"nil", "fresh", nil},
	} {
		assert.Panics(t, func() { srv.RegisterCommand(c.command, c.run) }, c.name)
	}
	srv.RegisterCommand("unsubscribe", nothing)
	p.send(`{"command":"unsubscribe","data":{"channel":"news"}}`)
	p.quiet()
}

// What a host's command gets from Channels.
func TestCommandsJoinAndLeave(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{CheckChannel: func(name string) error {
		if name == "forbidden" {
			return errors.New("no")
		}
		return nil
	}})
	p := connectPeer(t, srv)
	conn := p.conn(srv)
	cs := srv.Channels()
	require.NoError(t, cs.Join(conn, "Private-Room", json.RawMessage(`{"a":1}`)))
	require.Equal(t, "pushy:subscription-success", p.next().Event)
	assert.Equal(t, []string{"private-room"}, conn.Channels())
	var refused *pushy.JoinError
	require.ErrorAs(t, cs.Join(conn, "private-ROOM", nil), &refused)
	assert.Equal(t, "Already subscribed to this channel", refused.Reason)
	require.ErrorAs(t, cs.Join(conn, "private-other", json.RawMessage(`7`)), &refused)
	assert.Equal(t, "Invalid presence data", refused.Reason)
	var seen *pushy.Error
	require.ErrorAs(t, cs.Join(conn, "forbidden", nil), &seen)
	assert.Equal(t, "301", seen.Code)
	p.quiet()
	assert.ErrorIs(t, cs.Leave(conn, "nowhere"), pushy.ErrNotMember)
	assert.ErrorIs(t, cs.Leave(conn, "a:b"), pushy.ErrNotMember)
	require.NoError(t, cs.Leave(conn, "PRIVATE-room"))
	p.expect(`pushy:subscription-end {"channel":"private-room"}`)
	assert.ErrorIs(t, cs.Leave(conn, "private-room"), pushy.ErrNotMember)
	assert.Zero(t, srv.Entries())
}
