package redis

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/internal/brokerkit"
)

// A link is shared by all shards. It has one rueidis client for commands, and one for
// subscriptions and leases, which must not wait for commands. The clients reconnect
// automatically, but to any server at their address. When the server has become a replica,
// the link ends, and the shards create a new one.
type link struct {
	rueidis.Client
	side    rueidis.Client // for subscriptions and leases
	sharded bool           // sharded Pub/Sub is used
	counts  bool           // PUBLISH returns the number of subscribers on all servers

	ending  sync.Once
	ended   chan struct{}
	reason  error // why it has ended
	closing sync.Once
}

// end ends the link, so that all shards reconnect. It returns at once.
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

func (k *link) close() {
	k.closing.Do(func() {
		k.Client.Close()
		k.side.Close()
	})
}

// noteError ends the link if an error means that the server is not the primary any more, and
// logs a missing permission: once a minute for each kind.
func (b *Broker) noteError(k *link, what string, err error) {
	switch {
	case err == nil:
	case isRole(err), contains(err, "NOAUTH"): // a new connection authenticates itself
		// In a Cluster, the error is from one of several servers, and rueidis finds the slots.
		if !b.opts.Cluster {
			k.end(err)
		}
	case isForbidden(err):
		b.warn("the user lacks a permission", what, err)
	}
}

// connect returns the link that all shards share, and creates a new one if there is none or
// it has ended. The error is a *SettingError.
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
	client, err := rueidis.NewClient(b.client(b.register))
	if err != nil {
		err = b.opts.explain(err)
		if old == nil {
			err = b.opts.explainTLS(ctx, err)
		}
		return nil, err
	}
	side, err := rueidis.NewClient(b.client(nil))
	if err != nil {
		client.Close()
		return nil, b.opts.explain(err)
	}
	k := &link{Client: client, side: side, ended: make(chan struct{})}
	if err := b.inspect(ctx, k); err != nil {
		k.close()
		return nil, b.opts.explain(err)
	}
	b.link.Store(k)
	return k, nil
}

const (
	// bufferBytes is smaller than rueidis's default of half a MiB, because a node has few
	// connections with short commands.
	bufferBytes = 32 << 10
	ringScale   = 9 // 512 pending commands on a connection
	// refreshInterval is how often the Sentinels are asked for the primary, in case a
	// notification of theirs was missed.
	refreshInterval = 5 * time.Second
)

// client returns the options of a client. register is called with each new connection,
// before rueidis uses it.
func (b *Broker) client(register func(net.Conn) error) rueidis.ClientOption {
	o := &b.opts
	// rueidis pings at the interval KeepAlive, but does not set a default for the Sentinels.
	// Without pings, a Sentinel that stops to answer would block everything.
	dialer := net.Dialer{Timeout: o.Timeout, KeepAlive: time.Second}
	sentinels := dialer
	sentinels.Control = forSentinels
	return rueidis.ClientOption{
		InitAddress:       slices.Clone(o.Addresses), // rueidis changes their order
		ForceSingleClient: !o.Cluster && o.SentinelMaster == "",
		ShuffleInit:       o.Cluster,
		Username:          o.Username,
		Password:          o.Password,
		SelectDB:          o.Database,
		TLSConfig:         o.TLS,
		Dialer:            dialer,
		DialCtxFn: func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
			return b.dial(ctx, address, d, t, register)
		},
		Sentinel: rueidis.SentinelOption{
			MasterSet:               o.SentinelMaster,
			Username:                o.SentinelUsername,
			Password:                o.SentinelPassword,
			TLSConfig:               o.TLS,
			Dialer:                  sentinels,
			TopologyRefreshInterval: refreshInterval,
		},
		ClientName:          "pushy",
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		ConnWriteTimeout:    o.Timeout, // also for the answer to a PING, which is sent after an idle second
		ReadBufferEachConn:  bufferBytes,
		WriteBufferEachConn: bufferBytes,
		RingScaleEachConn:   ringScale,
		PipelineMultiplex:   -1, // one connection, so that commands arrive in the order in which they are sent
		DisableRetry:        true,
		DisableCache:        true,
	}
}

// forSentinels does nothing. As the Control of a dialer, it marks connections to Sentinels.
func forSentinels(string, string, syscall.RawConn) error { return nil }

// dial opens a connection, and stops when the Broker is closed.
func (b *Broker) dial(ctx context.Context, address string, d *net.Dialer, t *tls.Config,
	register func(net.Conn) error) (conn net.Conn, err error) {
	if b.opts.testing.via != nil {
		address = b.opts.testing.via(address)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	if t != nil {
		conn, err = (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = d.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	if register == nil || d.Control != nil {
		return &replies{Conn: conn}, nil
	}
	_ = conn.SetDeadline(time.Now().Add(b.opts.Timeout))
	opened := conn // the func can still run when dial has returned and conn is nil
	stop := context.AfterFunc(b.ctx, func() { _ = opened.Close() })
	err = register(conn)
	if !stop() || err != nil {
		_ = conn.Close()
		return nil, cmp.Or(err, b.ctx.Err())
	}
	return &replies{Conn: conn}, conn.SetDeadline(time.Time{})
}

// register runs registerScript on a new connection: the scripts that append over it then use
// the epoch of its server. It cannot be done later, because rueidis reconnects
// automatically. register reads the replies to all of its commands, and no others.
func (b *Broker) register(conn net.Conn) error {
	o := &b.opts
	var text []byte
	n := 0
	command := func(args ...string) {
		n++
		text = fmt.Appendf(text, "*%d\r\n", len(args))
		for _, a := range args {
			text = fmt.Appendf(text, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	switch {
	case o.Username != "":
		command("AUTH", o.Username, o.Password)
	case o.Password != "":
		command("AUTH", o.Password)
	}
	if o.Database != 0 {
		command("SELECT", strconv.Itoa(o.Database))
	}
	for _, sh := range b.shards {
		command("EVAL", registerScript.text, "1", sh.storeKey(), sh.tag, "", b.node, "", brokerkit.NewEpoch())
	}
	if _, err := conn.Write(text); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 512)
	for range n {
		err := skipReply(r)
		if o.Cluster && contains(err, "MOVED", "ASK", "CLUSTERDOWN") {
			continue // another server has the slot of this shard
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipReply reads one reply, which must not be a list. If it is an error, it returns it.
func skipReply(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(line))
	switch {
	case strings.HasPrefix(text, "-"):
		return serverError(text[1:])
	case strings.HasPrefix(text, "$"):
		n, err := strconv.Atoi(text[1:])
		if err != nil || n > 512 {
			return errFormat
		}
		_, err = r.Discard(n + 2)
		return err
	case strings.HasPrefix(text, "+"), strings.HasPrefix(text, ":"):
		return nil
	}
	return fmt.Errorf("%w: %.30q", errFormat, text)
}

// inspect returns an error if the server does not match the Options, does not accept
// writes, or does not permit what pushy needs.
func (b *Broker) inspect(ctx context.Context, k *link) error {
	o := &b.opts
	where := strings.Join(o.Addresses, ", ")
	if o.Cluster && k.Mode() != rueidis.ClientModeCluster {
		return wrong("Cluster", "%s is not a Redis Cluster", where)
	}
	info := map[string]string{}
	for _, node := range k.Nodes() { // any one of them
		text, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
		switch {
		case isForbidden(err) && !o.Cluster:
			b.warn("the user has no permission for INFO: positions get a new epoch with each new connection, "+
				"and a replica is detected only when it refuses a write", "INFO", err)
		case err != nil:
			return err
		}
		info = infoFields(text)
		break
	}
	var major int
	if _, err := fmt.Sscanf(info["redis_version"], "%d.", &major); err == nil && major < 6 {
		return wrong("Addresses", "the server has Redis %s; Redis 6 or newer is required", info["redis_version"])
	}
	if !o.Cluster && info["redis_mode"] == "cluster" {
		return wrong("Cluster", "%s is a node of a Redis Cluster, but this option is not set", where)
	}
	k.sharded = o.Cluster && major >= 7 && !o.testing.plain
	k.counts = k.sharded || !o.Cluster
	if _, err := b.checkRole(ctx, k); err != nil {
		return err
	}
	refused, err := b.shards[0].exec(ctx, k, k, tryScript, "").AsStrSlice()
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

// checkRole returns errReplica for a replica: a replica accepts PUBLISH, but its subscribers
// can miss messages. It returns the run_id of the server, or "" without the permission for
// INFO.
func (b *Broker) checkRole(ctx context.Context, c doer) (runID string, err error) {
	if b.opts.Cluster {
		return "", nil // there, a subscription ends when its slot moves
	}
	replication, err := c.Do(ctx, c.B().Info().Section("replication").Build()).ToString()
	if isForbidden(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if role := infoFields(replication)["role"]; role == "slave" || role == "replica" {
		return "", errReplica
	}
	server, err := c.Do(ctx, c.B().Info().Section("server").Build()).ToString()
	return infoFields(server)["run_id"], err
}
