package pushy_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
)

// The Go statements of docs/api.md, on the servers on which its requests are sent.
func TestDocumentedGoCalls(t *testing.T) {
	t.Parallel()
	rt, _ := documentedServers(t)
	ctx := t.Context()
	for _, call := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Publish", func(t *testing.T) {
			err := rt.Publish(ctx, "lobby", "news", map[string]string{"text": "Hello"})
			require.NoError(t, err)
		}},
		{"PublishAll", func(t *testing.T) {
			news := "Hello"
			published, err := rt.PublishAll(ctx, []pushy.Event{
				{Channel: "lobby", Name: "news", Data: news},
				{Channel: "chat", Name: "news", Data: news, ID: "order-17"},
			})
			require.NoError(t, err)
			require.Len(t, published, 2)
			assert.EqualValues(t, 2, published[1].Position.Offset)
		}},
		{"ListChannels", func(t *testing.T) {
			list, err := rt.ListChannels(ctx, pushy.ChannelQuery{Prefix: "private-", Count: true})
			require.NoError(t, err)
			assert.Equal(t, []pushy.ListedChannel{
				{Name: "private-one", Subscribers: 1, Presence: true},
				{Name: "private-room", Subscribers: 2, Presence: true},
			}, list.Channels)
			assert.Equal(t, pushy.Coverage{Nodes: 3}, list.Coverage)
		}},
		{"ListMembers", func(t *testing.T) {
			list, err := rt.ListMembers(ctx, pushy.MemberQuery{Channel: "private-one"})
			require.NoError(t, err)
			require.Len(t, list.Members, 1)
			assert.Equal(t, "42", list.Members[0].User)
		}},
		{"Connections", func(t *testing.T) {
			list, err := rt.Connections(ctx, pushy.ConnQuery{User: "42"})
			require.NoError(t, err)
			require.Len(t, list.Conns, 1)
			assert.Equal(t, 3, list.Conns[0].ChannelCount)
		}},
		{"History", func(t *testing.T) {
			past, err := rt.History(ctx, "chat", pushy.HistoryOptions{After: 1, Limit: 50})
			require.NoError(t, err)
			require.Len(t, past.Events, 1)
			assert.EqualValues(t, 2, past.Top.Offset)
		}},
		{"Position", func(t *testing.T) {
			position, err := rt.Position(ctx, "chat")
			require.NoError(t, err)
			assert.EqualValues(t, 2, position.Offset)
		}},
		{"SendUser", func(t *testing.T) {
			sent, err := rt.SendUser(ctx, "42", "order", map[string]string{"state": "paid"})
			require.NoError(t, err)
			assert.Equal(t, pushy.Sent{Sent: 1, Coverage: pushy.Coverage{Nodes: 3}}, sent)
		}},
		{"Kick", func(t *testing.T) {
			kicked, err := rt.Kick(ctx, pushy.Kick{
				Target: "user:42",
				Reason: "Spam",
				Until:  time.Now().Add(time.Hour),
			})
			require.NoError(t, err)
			assert.Equal(t, pushy.Kicked{Closed: 1, Coverage: pushy.Coverage{Nodes: 3}}, kicked)
		}},
		{"Bans", func(t *testing.T) {
			bans, err := rt.Bans(ctx)
			require.NoError(t, err)
			require.Len(t, bans, 1)
			assert.Equal(t, "user:42", bans[0].Target)
		}},
		{"Unban", func(t *testing.T) {
			nodes, lifted, err := rt.Unban(ctx, "user:42")
			require.NoError(t, err)
			assert.True(t, lifted)
			assert.Equal(t, 3, nodes.Nodes)
		}},
	} {
		call.run(t)
	}
}

// The same from another process.
func TestDocumentedBackendCalls(t *testing.T) {
	t.Parallel()
	_, url := documentedServers(t)
	environment := map[string]string{"PUSHY_URL": url + "/pushy", "PUSHY_SECRET_KEY": documentedKey}
	os := struct{ Getenv func(string) string }{func(key string) string { return environment[key] }}
	ctx := t.Context()
	client, err := backend.New(backend.Options{
		URL:       os.Getenv("PUSHY_URL"),
		SecretKey: os.Getenv("PUSHY_SECRET_KEY"),
	})
	require.NoError(t, err)
	defer client.CloseIdleConnections()
	everywhere := backend.Coverage{Nodes: 3}
	for _, call := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Publish", func(t *testing.T) {
			err := client.Publish(ctx, "lobby", "news", map[string]string{"text": "Hello"})
			require.NoError(t, err)
		}},
		{"PublishAll", func(t *testing.T) {
			news := "Hello"
			published, err := client.PublishAll(ctx, backend.Batch{
				ID:     "order-17",
				Events: []backend.Event{{Channels: []string{"lobby", "chat"}, Name: "news", Data: news}},
				Count:  true,
			})
			require.NoError(t, err)
			assert.Equal(t, 2, published.Events[0]["lobby"].Subscribers)
			assert.EqualValues(t, 2, published.Events[0]["chat"].Position.Offset)
		}},
		{"ListChannels", func(t *testing.T) {
			list, err := client.ListChannels(ctx, backend.ChannelQuery{Prefix: "private-", Count: true})
			require.NoError(t, err)
			assert.Equal(t, []backend.ListedChannel{
				{Name: "private-one", Subscribers: 1, Presence: true},
				{Name: "private-room", Subscribers: 2, Presence: true},
			}, list.Channels)
			assert.Equal(t, everywhere, list.Coverage)
		}},
		{"ChannelPages", func(t *testing.T) {
			var out strings.Builder
			fmt := struct{ Println func(string) }{func(line string) { out.WriteString(line + " ") }}
			require.NoError(t, func() error {
				for list, err := range client.ChannelPages(ctx, backend.ChannelQuery{Prefix: "private-"}) {
					if err != nil {
						return err
					}
					for _, channel := range list.Channels {
						fmt.Println(channel.Name)
					}
				}
				return nil
			}())
			assert.Equal(t, "private-one private-room ", out.String())
		}},
		{"ListMembers", func(t *testing.T) {
			list, err := client.ListMembers(ctx, backend.MemberQuery{Channel: "private-one"})
			require.NoError(t, err)
			require.Len(t, list.Members, 1)
			assert.Equal(t, "42", list.Members[0].User)
		}},
		{"Connections", func(t *testing.T) {
			list, err := client.Connections(ctx, backend.ConnQuery{User: "42"})
			require.NoError(t, err)
			require.Len(t, list.Conns, 1)
			assert.Equal(t, 3, list.Conns[0].ChannelCount)
		}},
		{"History", func(t *testing.T) {
			past, err := client.History(ctx, "chat", backend.HistoryOptions{After: 1, Limit: 50})
			require.NoError(t, err)
			require.Len(t, past.Events, 1)
			assert.EqualValues(t, 2, past.Top.Offset)
		}},
		{"Position", func(t *testing.T) {
			position, err := client.Position(ctx, "chat")
			require.NoError(t, err)
			assert.EqualValues(t, 2, position.Offset)
		}},
		{"SendUser", func(t *testing.T) {
			sent, err := client.SendUser(ctx, "42", "order", map[string]string{"state": "paid"})
			require.NoError(t, err)
			assert.Equal(t, backend.Sent{Sent: 1, Coverage: everywhere}, sent)
		}},
		{"Kick", func(t *testing.T) {
			kicked, err := client.Kick(ctx, backend.Kick{
				Target: "user:42",
				Reason: "Spam",
				Until:  time.Now().Add(time.Hour),
			})
			require.NoError(t, err)
			assert.Equal(t, backend.Kicked{Closed: 1, Coverage: everywhere}, kicked)
		}},
		{"Bans", func(t *testing.T) {
			bans, err := client.Bans(ctx)
			require.NoError(t, err)
			require.Len(t, bans, 1)
			assert.Equal(t, "user:42", bans[0].Target)
		}},
		{"Unban", func(t *testing.T) {
			nodes, lifted, err := client.Unban(ctx, "user:42")
			require.NoError(t, err)
			assert.True(t, lifted)
			assert.Equal(t, everywhere, nodes)
		}},
	} {
		call.run(t)
	}
}

// Every Go statement in docs/api.md is one of this file, which are run.
func TestDocumentedGoIsRun(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("docs_api_go_test.go")
	require.NoError(t, err)
	run := withoutIndent(string(source))
	found := 0
	for _, block := range codeBlocks(t, "docs/api.md") {
		if block.language != "go" {
			continue
		}
		statement := ""
		for line := range strings.Lines(block.text + "\n") {
			if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "}") && statement != "" {
				assert.True(t, strings.Contains(run, withoutIndent(statement)), "not run: %s", statement)
				found++
				statement = ""
			}
			statement += line
		}
	}
	assert.GreaterOrEqual(t, found, 24)
}

func withoutIndent(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimLeft(line, "\t"))
	}
	return out.String()
}

// The func of docs/security.md that asks all nodes for the uses of their keys.
func TestDocumentedKeyUses(t *testing.T) {
	t.Parallel()
	rt, _ := documentedServers(t)
	ctx := t.Context()
	rt.HandleAsk("keys", func(context.Context, json.RawMessage) (any, error) {
		return rt.Stats().Keys, nil
	})
	answers, err := rt.Ask(ctx, "keys", nil)
	require.NoError(t, err)
	var uses []pushy.KeyUse
	require.Len(t, answers.Answers, 3)
	require.NoError(t, json.Unmarshal(answers.Answers[0].Data, &uses))
	require.Len(t, uses, 2)
	assert.Equal(t, 1, uses[0].Version)
	source, err := os.ReadFile("docs_api_go_test.go")
	require.NoError(t, err)
	assert.Contains(t, withoutIndent(string(source)), withoutIndent(docsBlock(t, "docs/security.md", "go", "HandleAsk")))
}
