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

// A link is what all lanes share: one client of rueidis for commands, and one for
// subscriptions and leases, which must not wait for commands. They reconnect by
// themselves, but to whatever is at their address: once the server says that it is a
// replica the link has ended, and the lanes make a new one.
type link struct {
	rueidis.Client
	side    rueidis.Client
	sharded bool
	counts  bool // PUBLISH returns how many subscribers there are, wherever they are

	ending  sync.Once
	ended   chan struct{}
	reason  error // why it has ended
	closing sync.Once
}

// end makes all lanes leave the link. It returns at once.
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
	// A node has few connections with short commands: rueidis's own buffers of half
	// a MiB each are for others.
	bufferBytes = 32 << 10
	ringScale   = 9 // commands waiting on a connection: 512
	// refreshInterval is how often the Sentinels are asked who the primary is, in
	// case a message of theirs about a change was missed.
	refreshInterval = 5 * time.Second
)

// client is the options of a client. register is called with each of its connections
// before rueidis gets it.
func (b *Broker) client(register func(net.Conn) error) rueidis.ClientOption {
	o := &b.opts
	// rueidis pings at this interval, and does not set it for the Sentinels: without it
	// a Sentinel that falls silent would hold up everything.
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
		ConnWriteTimeout:    o.Timeout, // after a second of silence a PING must be answered by then
		ReadBufferEachConn:  bufferBytes,
		WriteBufferEachConn: bufferBytes,
		RingScaleEachConn:   ringScale,
		PipelineMultiplex:   -1, // one connection, so that what is sent in order arrives in order
		DisableRetry:        true,
		DisableCache:        true,
	}
}

// forSentinels marks the dialer of connections to Sentinels.
func forSentinels(string, string, syscall.RawConn) error { return nil }

// dial opens a connection. Close ends it.
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
	stop := context.AfterFunc(b.ctx, func() { _ = conn.Close() })
	err = register(conn)
	if !stop() || err != nil {
		_ = conn.Close()
		return nil, cmp.Or(err, b.ctx.Err())
	}
	return &replies{Conn: conn}, conn.SetDeadline(time.Time{})
}

// register makes the epochs right for the server at the other end, for the scripts
// that append over this connection. It happens here and not in a script of the link's
// because rueidis reconnects by itself. It reads the reply to each of its commands, so
// nothing that it reads belongs to what rueidis sends.
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
	for _, l := range b.lanes {
		command("EVAL", registerScript.text, "1", l.storeKey(), l.tag, "", b.node, "", brokerkit.NewEpoch())
	}
	if _, err := conn.Write(text); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 512)
	for range n {
		err := skipReply(r)
		if o.Cluster && contains(err, "MOVED", "ASK", "CLUSTERDOWN") {
			continue // another server has this lane
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipReply reads one reply, which is no list, and returns what is an error.
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
			b.complain("the user may not run INFO: positions get another epoch with each new connection, "+
				"and a replica is noticed only when it refuses a write", "INFO", err)
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
	k.sharded = o.Cluster && major >= 7 && !o.testing.plain
	k.counts = k.sharded || !o.Cluster
	if _, err := b.checkRole(ctx, k); err != nil {
		return err
	}
	refused, err := b.lanes[0].exec(ctx, k, k, tryScript, "").AsStrSlice()
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

// checkRole returns errReplica for a replica: it takes commands, answers PUBLISH as
// if all was well, and may get nothing of what others publish. It returns which
// server there is, if the user may ask.
func (b *Broker) checkRole(ctx context.Context, c doer) (runID string, err error) {
	if b.opts.Cluster {
		return "", nil // moved slots end a subscription there
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
