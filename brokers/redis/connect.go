package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// A link is one client of rueidis. It reconnects by itself, but to whatever is at
// its address: once the server says that it is a replica the link has ended, and the
// lanes make a new one.
type link struct {
	rueidis.Client
	sharded bool
	counts  bool // PUBLISH says how many subscribers there are, wherever they are

	ending  sync.Once
	ended   chan struct{}
	reason  error // why it has ended
	closing sync.Once
}

// end has all lanes leave the link. It returns at once.
func (k *link) end(reason error) {
	k.ending.Do(func() {
		k.reason = reason
		close(k.ended)
	})
}

func (k *link) isEnded() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

func (k *link) close() { k.closing.Do(k.Client.Close) }

// judge ends the link if an error says that the server is no primary any more, and
// logs what the user may not do: once a minute for each kind.
func (b *Broker) judge(k *link, what string, err error) {
	switch {
	case err == nil:
	case isRole(err), contains(err, "NOAUTH"): // a new connection authenticates itself
		if !b.opts.Cluster { // there it is one server of several, and rueidis asks where the slots are
			k.end(err)
		}
	case isForbidden(err):
		b.complain("the user lacks a permission", what, err)
	}
}

// connect returns the link that all lanes share, and makes a new one if there is
// none or if it has ended. The error is a *SettingError.
func (b *Broker) connect(ctx context.Context) (*link, error) {
	b.connecting.Lock()
	defer b.connecting.Unlock()
	old := b.link.Load()
	if old != nil && !old.isEnded() {
		return old, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if old != nil {
		old.close()
	}
	client, err := rueidis.NewClient(b.opts.client())
	if err != nil {
		err = b.opts.explain(err)
		if old == nil {
			err = b.opts.explainTLS(ctx, err)
		}
		return nil, err
	}
	k := &link{Client: client, ended: make(chan struct{})}
	if err := b.inspect(ctx, k); err != nil {
		client.Close()
		return nil, b.opts.explain(err)
	}
	b.link.Store(k)
	return k, nil
}

const (
	// A node has few connections with short commands: rueidis's own buffers of half
	// a MiB each are for others.
	bufferBytes = 32 << 10
	ringScale   = 9 // commands waiting on a connection: 512
)

func (o *Options) client() rueidis.ClientOption {
	dialer := net.Dialer{Timeout: o.Timeout}
	return rueidis.ClientOption{
		InitAddress:       slices.Clone(o.Addresses), // rueidis changes their order
		ForceSingleClient: !o.Cluster && o.SentinelMaster == "",
		ShuffleInit:       o.Cluster,
		Username:          o.Username,
		Password:          o.Password,
		SelectDB:          o.Database,
		TLSConfig:         o.TLS,
		Dialer:            dialer,
		DialCtxFn:         dial,
		Sentinel: rueidis.SentinelOption{
			MasterSet:               o.SentinelMaster,
			Username:                o.SentinelUsername,
			Password:                o.SentinelPassword,
			TLSConfig:               o.TLS,
			Dialer:                  dialer,
			TopologyRefreshInterval: refreshInterval,
		},
		ClientName:          "pushy",
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		ConnWriteTimeout:    o.Timeout, // after a second of silence a PING must be answered by then
		ReadBufferEachConn:  bufferBytes,
		WriteBufferEachConn: bufferBytes,
		RingScaleEachConn:   ringScale,
		PipelineMultiplex:   -1, // one connection, so that what is sent in order arrives in order
		DisableRetry:        true,
		DisableCache:        true,
	}
}

// inspect finds a server that is not what the Options say it is, that takes no
// writes, or whose user may not do what pushy needs.
func (b *Broker) inspect(ctx context.Context, k *link) error {
	o := &b.opts
	where := strings.Join(o.Addresses, ", ")
	if o.Cluster && k.Mode() != rueidis.ClientModeCluster {
		return wrong("Cluster", "%s is not a Redis Cluster", where)
	}
	info := map[string]string{}
	for _, node := range k.Nodes() { // one will do
		text, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
		switch {
		case isForbidden(err) && !o.Cluster:
			b.complain("the user may not run INFO: the server's version is not checked", "INFO", err)
		case err != nil:
			return err
		}
		info = infoFields(text)
		break
	}
	var major int
	if _, err := fmt.Sscanf(info["redis_version"], "%d.", &major); err == nil && major < 6 {
		return wrong("Addresses", "version %s of Redis is there; 6 or newer is needed", info["redis_version"])
	}
	if !o.Cluster && info["redis_mode"] == "cluster" {
		return wrong("Cluster", "%s is a node of a Redis Cluster, but this is not set", where)
	}
	k.sharded = o.Cluster && major >= 7 && !o.plain
	k.counts = k.sharded || !o.Cluster
	if !o.Cluster {
		if err := b.checkRole(ctx, k); err != nil {
			return err
		}
	}
	return b.tryScripts(ctx, k)
}

func infoFields(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// doer is a client or a connection.
type doer interface {
	B() rueidis.Builder
	Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult
}

// checkRole returns errReplica for a replica: it takes commands, answers PUBLISH as
// if all was well, and may get nothing of what others publish.
func (b *Broker) checkRole(ctx context.Context, c doer) error {
	answer, err := c.Do(ctx, c.B().Role().Build()).ToArray()
	role := ""
	if err == nil && len(answer) > 0 {
		role, err = answer[0].ToString()
	}
	if isForbidden(err) {
		var text string
		text, err = c.Do(ctx, c.B().Info().Section("replication").Build()).ToString()
		role = infoFields(text)["role"]
	}
	switch {
	case isForbidden(err):
		b.complain("the user may run neither ROLE nor INFO: a replica is noticed only by its refusing writes", "ROLE", err)
		return nil
	case err != nil:
		return err
	case role == "slave" || role == "replica":
		return errReplica
	}
	return nil
}

// tryScripts runs each command that the scripts use, on keys that nobody reads.
func (b *Broker) tryScripts(ctx context.Context, k *link) error {
	refused, err := b.lanes[0].exec(ctx, k, k, tryScript).AsStrSlice()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(refused); i += 2 {
		err := errors.New(refused[i+1])
		if isForbidden(err) || isRole(err) {
			return fmt.Errorf("%s: %w", refused[i], err)
		}
	}
	return nil
}
