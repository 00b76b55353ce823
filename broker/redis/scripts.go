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

// The scripts. The comment of each file describes what it does and its arguments.
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
	idsScript      = newScript("common", "time", "ids")
	nodesScript    = newScript("common", "time", "nodes")
	closeScript    = newScript("common", "time", "close")
	ledgerScript   = newScript("common", "time", "ledger")
	repairScript   = newScript("common", "repair")
	tryScript      = newScript("common", "try")

	// CheckEveryAppend uses these instead of eventScript and memberScript.
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

// script is a Lua script.
type script struct {
	name string
	text string
	sum  string // the SHA-1 that identifies it in Redis
}

// newScript joins files without their comments, which Redis would store.
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
	sum := sha1.Sum([]byte(text.String()))
	return &script{
		name: files[len(files)-1],
		text: text.String(),
		sum:  hex.EncodeToString(sum[:]),
	}
}

// run runs the script with one key.
func (s *script) run(ctx context.Context, c doer, key string, args []string) rueidis.RedisResult {
	result := c.Do(ctx, c.B().Evalsha().Sha1(s.sum).Numkeys(1).Key(key).Arg(args...).Build())
	if reply, ok := rueidis.IsRedisErr(result.Error()); ok && reply.IsNoScript() {
		return c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build())
	}
	return result
}

// exec runs a script for this shard over c, which is k or a connection of k. If a key has
// another type, because another program wrote it, exec removes it and repeats the script.
func (sh *shard) exec(
	ctx context.Context, k *link, c doer, s *script, channel string, args ...string,
) rueidis.RedisResult {
	ctx, cancel := sh.b.bounded(ctx)
	defer cancel()
	command := "PUBLISH"
	if k.sharded {
		command = "SPUBLISH"
	}
	all := append([]string{sh.tag, command, sh.b.node, channel}, args...)
	result := s.run(ctx, c, sh.storeKey(), all)
	if contains(result.Error(), wordKeyType) {
		fixed := append(all[:4:4], sh.versionsKey())
		n, err := repairScript.run(ctx, c, sh.storeKey(), fixed).AsInt64()
		if err == nil && n > 0 {
			sh.b.warn("removed a key of another type, which pushy did not write", s.name, result.Error())
			result = s.run(ctx, c, sh.storeKey(), all)
		}
	}
	sh.b.noteError(k, s.name+" script", result.Error())
	return result
}

// execLeased is exec for scripts that need the store, and for a Join or Adopt the node's
// lease. Both can be lost: when the data is deleted, or when the node was stopped for a long
// time. Then execLeased renews them, which makes Resets due, and repeats the script.
func (sh *shard) execLeased(
	ctx context.Context, k *link, s *script, channel string, args ...string,
) rueidis.RedisResult {
	result := sh.exec(ctx, k, k, s, channel, args...)
	if contains(result.Error(), wordEmptied, wordLease) {
		if _, err := sh.renew(ctx, k, k); err == nil {
			return sh.exec(ctx, k, k, s, channel, args...)
		}
	}
	return result
}

// failed returns the error that callers of the Broker receive for the error of a command.
func (sh *shard) failed(ctx context.Context, what string, err error) error {
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
	_, isReply := rueidis.IsRedisErr(err)
	if !isReply || isRole(err) || isMoved(err) {
		return away(what, err)
	}
	return wrapped(what, err)
}
