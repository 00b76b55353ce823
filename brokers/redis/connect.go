package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/rueidis"
)

// connect returns the client, which it makes once: after that it reconnects by
// itself.
func (b *Broker) connect(ctx context.Context) (rueidis.Client, error) {
	b.mu.Lock()
	client := b.client
	b.mu.Unlock()
	if client != nil {
		return client, nil
	}
	b.connecting.Lock()
	defer b.connecting.Unlock()
	b.mu.Lock()
	client = b.client
	b.mu.Unlock()
	if client != nil || ctx.Err() != nil {
		return client, ctx.Err()
	}
	client, err := rueidis.NewClient(b.opts.client())
	if err != nil {
		return nil, b.opts.explain(err)
	}
	sharded, err := b.opts.inspect(ctx, client)
	if err != nil {
		client.Close()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client, b.sharded, b.counts = client, sharded, sharded || !b.opts.Cluster
	return client, nil
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
		InitAddress: o.Addresses, ForceSingleClient: !o.Cluster && o.SentinelMaster == "", ShuffleInit: o.Cluster,
		Username: o.Username, Password: o.Password, SelectDB: o.Database, TLSConfig: o.TLS, Dialer: dialer,
		Sentinel: rueidis.SentinelOption{MasterSet: o.SentinelMaster, Username: o.SentinelUsername,
			Password: o.SentinelPassword, TLSConfig: o.TLS, Dialer: dialer, TopologyRefreshInterval: refreshInterval},
		ClientName: "pushy", ClientSetInfo: rueidis.DisableClientSetInfo,
		ConnWriteTimeout:   o.Timeout, // after a second of silence a PING must be answered by then
		ReadBufferEachConn: bufferBytes, WriteBufferEachConn: bufferBytes, RingScaleEachConn: ringScale,
		PipelineMultiplex: -1, // one connection, so that what is sent in order arrives in order
		DisableRetry:      true, DisableCache: true,
	}
}

// inspect finds a server that is not what the Options say it is.
func (o *Options) inspect(ctx context.Context, client rueidis.Client) (sharded bool, err error) {
	if o.Cluster && client.Mode() != rueidis.ClientModeCluster {
		return false, &SettingError{"Cluster", fmt.Errorf("%s is not a Redis Cluster", strings.Join(o.Addresses, ", "))}
	}
	info := map[string]string{}
	for _, node := range client.Nodes() { // one will do
		text, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
		if err != nil {
			return false, o.explain(err)
		}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				info[name] = value
			}
		}
		break
	}
	var major int
	if _, err := fmt.Sscanf(info["redis_version"], "%d.", &major); err == nil && major < 6 {
		return false, &SettingError{"Addresses", fmt.Errorf("version %s of Redis is there; 6 or newer is needed", info["redis_version"])}
	}
	if !o.Cluster && info["redis_mode"] == "cluster" {
		return false, &SettingError{"Cluster", fmt.Errorf("%s is a node of a Redis Cluster, but Cluster is not set", strings.Join(o.Addresses, ", "))}
	}
	return o.Cluster && major >= 7 && !o.plain, nil
}

// awayError is a SettingError that may right itself: nobody answers there now.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

func isAway(err error) bool {
	var away awayError
	return errors.As(err, &away)
}

// explain says which setting an error of the first connection is about.
func (o *Options) explain(err error) error {
	text := err.Error()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	setting := "Addresses"
	switch {
	case has("WRONGPASS"):
		setting = "Password"
		err = fmt.Errorf("it is not accepted: %w", err)
	case has("NOAUTH"):
		setting = "Password"
		err = fmt.Errorf("one is asked for: %w", err)
	case has("NOPERM"):
		setting = "Username"
		err = fmt.Errorf("the user may not do what pushy needs: %w", err)
	case has("cluster support disabled"):
		setting = "Cluster"
		err = fmt.Errorf("%s is not a Redis Cluster: %w", strings.Join(o.Addresses, ", "), err)
	case has("DB index", "SELECT is not allowed"):
		setting = "Database"
	case has("No such master"):
		setting = "SentinelMaster"
		err = fmt.Errorf("the Sentinels do not know %q", o.SentinelMaster)
	case o.SentinelMaster != "" && has("unknown command", "ERR unknown"):
		err = fmt.Errorf("%s is not a Sentinel: %w", strings.Join(o.Addresses, ", "), err)
	default:
		err = awayError{fmt.Errorf("nobody answers as Redis at %s: %w", strings.Join(o.Addresses, ", "), err)}
	}
	return &SettingError{setting, err}
}
