package redis

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"strings"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
)

//go:embed lua
var luaFiles embed.FS

// The scripts; each file says what it does and what its arguments are.
var (
	registerScript = newScript("common", "identify", "register")
	eventScript    = newScript("common", "time", "append", "event")
	memberScript   = newScript("common", "time", "append", "members", "member")
	renewScript    = newScript("common", "time", "identify", "members", "renew")
	tidyScript     = newScript("common", "time", "tidy")
	stateScript    = newScript("common", "state")
	readScript     = newScript("common", "time", "read")
	topsScript     = newScript("common", "tops")
	forgetScript   = newScript("common", "time", "forget")
	nodesScript    = newScript("common", "time", "nodes")
	ledgerScript   = newScript("common", "time", "ledger")
	repairScript   = newScript("common", "repair")
	tryScript      = newScript("common", "try")

	// What CheckEveryAppend uses instead.
	checkedEventScript  = newScript("common", "time", "identify", "check", "append", "event")
	checkedMemberScript = newScript("common", "time", "identify", "check", "append", "members", "member")
)

// The first words of the errors that scripts return.
const (
	wordEmptied = "NOSTORE"
	wordLease   = "NOLEASE"
	wordOwner   = "NOTOWNER"
	wordExists  = "EXISTS the member"
	wordBusy    = "BUSY too many"
	wordVersion = "OTHERVERSION"
	wordKeyType = "WRONGTYPE"
)

var knownErrors = map[string]error{
	wordOwner:  broker.ErrNotOwner,
	wordExists: broker.ErrMemberExists,
	wordBusy:   broker.ErrBusy,
}

// script is a script of Lua and the sum by which Redis knows it.
type script struct{ name, text, sum string }

// newScript joins files and leaves their comments out, which Redis would keep.
func newScript(files ...string) *script {
	var text strings.Builder
	for _, name := range files {
		source, err := luaFiles.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err)
		}
		for line := range strings.Lines(string(source)) {
			if code := strings.TrimSpace(line); code != "" && !strings.HasPrefix(code, "--") {
				text.WriteString(code + "\n")
			}
		}
	}
	sum := sha1.Sum([]byte(text.String())) // Redis names a script by it
	return &script{name: files[len(files)-1], text: text.String(), sum: hex.EncodeToString(sum[:])}
}

// run runs the script with one key.
func (s *script) run(ctx context.Context, c doer, key string, args []string) rueidis.RedisResult {
	result := c.Do(ctx, c.B().Evalsha().Sha1(s.sum).Numkeys(1).Key(key).Arg(args...).Build())
	if said, ok := rueidis.IsRedisErr(result.Error()); ok && said.IsNoScript() {
		return c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build())
	}
	return result
}

// exec runs a script for this lane over c, which is k or a connection of it. Keys of
// another type, which others have written, are removed, and it runs once more.
func (l *lane) exec(
	ctx context.Context, k *link, c doer, s *script, channel string, args ...string,
) rueidis.RedisResult {
	ctx, cancel := l.b.bounded(ctx)
	defer cancel()
	command := "PUBLISH"
	if k.sharded {
		command = "SPUBLISH"
	}
	all := append([]string{l.tag, command, l.b.node, channel}, args...)
	result := s.run(ctx, c, l.storeKey(), all)
	if contains(result.Error(), wordKeyType) {
		fixed := append(all[:4:4], l.versionsKey())
		n, err := repairScript.run(ctx, c, l.storeKey(), fixed).AsInt64()
		if err == nil && n > 0 {
			l.b.complain("removed a key of another type, which pushy did not write", s.name, result.Error())
			result = s.run(ctx, c, l.storeKey(), all)
		}
	}
	l.b.judge(k, s.name+" script", result.Error())
	return result
}

// ask is exec for what needs a store, and a lease for joins. Either may be lost, with
// the data or because the node was stopped for long: then Resets are due, and what is
// asked is of now.
func (l *lane) ask(ctx context.Context, k *link, s *script, channel string, args ...string) rueidis.RedisResult {
	result := l.exec(ctx, k, k, s, channel, args...)
	if contains(result.Error(), wordEmptied, wordLease) {
		if _, err := l.renew(ctx, k, k); err == nil {
			return l.exec(ctx, k, k, s, channel, args...)
		}
	}
	return result
}

// failed gives an error of a command the form that callers of the Broker see.
func (l *lane) failed(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return wrapped(what, ctx.Err())
	}
	for word, known := range knownErrors {
		if contains(err, word) {
			return known
		}
	}
	_, said := rueidis.IsRedisErr(err)
	if !said || isRole(err) || isMoved(err) {
		return away(what, err)
	}
	return wrapped(what, err)
}
