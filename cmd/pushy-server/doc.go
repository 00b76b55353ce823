// Pushy-server is the stand-alone pushy server. It reads the config file of the
// Node original without changes:
//
//	pushy-server [-check] config.json
//	pushy-server publish [flags] CHANNEL EVENT [DATA]
//	pushy-server listen [flags] CHANNEL...
//	pushy-server send [flags] TARGET EVENT [DATA]
//	pushy-server channels [flags] [PREFIX]
//	pushy-server members [flags] CHANNEL
//	pushy-server connections [flags] TARGET
//	pushy-server kick [flags] TARGET
//	pushy-server unban [flags] TARGET
//	pushy-server bans [flags]
//	pushy-server history [flags] CHANNEL
//	pushy-server position [flags] CHANNEL
//	pushy-server version
//	pushy-server help [COMMAND]
//
// The commands with flags call a running server. publish publishes an event, listen
// prints the events of channels, and send sends a message to a user. channels,
// members, connections and bans print lists, and history and position what a channel
// keeps. kick removes a user, a connection or the subscribers of a channel, and can
// ban users and channels; unban ends a ban. The option -h of each command prints its
// usage.
//
//	-check    check the config file, the files that it names and the
//	          broker's settings without connecting, log the warnings that
//	          the server would log, print its address, and exit
//	-version  print the version
//	-h        print this text
//
// # Config
//
// The file contains one JSON object. Keys are case-sensitive and must not be
// repeated, and comments are not allowed. Only secretKey is required. File names
// are relative to the directory of the config file.
//
//	port        number, also as a string; 0: any free port. Default 8123
//	host        address or name to listen on. Default: all interfaces
//	secretKey   signs and checks requests, triggers and tokens
//	oldSecretKeys
//	            array of keys that are accepted, too, and sign nothing: to change
//	            the key (docs/security.md). Default: none
//	disableV1   true refuses triggers and tokens of version 1, which the original
//	            uses. Default false
//	ssl         true serves HTTPS. Default false
//	cert, key   PEM files of the certificate, followed by its chain, and of its
//	            private key; ssl needs both
//	origins     array of origins whose pages can connect, such as
//	            "https://app.example.com"; "*" is any. Pages of the server's
//	            own origin can always connect. Default: any; [] allows no others
//	prefix      path of triggers and client files. Default "/pushy"
//	allowPrivateEvents
//	            true allows triggers to publish events whose names begin with
//	            "private-" or "presence-" (PROTOCOL.md, D25). Default false
//	trustedProxies
//	            array of addresses and networks such as "10.0.0.0/8" of proxies
//	            whose X-Forwarded-For names the client, for limits.perAddress
//	            and limits.connectRate.
//	            Default: none; the address of the connection is the client's
//	channels    array of objects: the properties of channels by the beginning
//	            of their names, see below
//	grace       how long a member stays after its connection is lost, such as
//	            "30s"; at least "1s". It is also the lease of the server, and
//	            must be equal on servers with the same broker. Default "15s"
//	repeatWindow
//	            how long the id of a request to the signed API is remembered, so
//	            that the request has its effect once; from "11m" to "20m", equal on
//	            servers with the same broker. Default "20m"
//	returnRate  how many clients a second may connect again after this server
//	            was shut down or has failed: they spread their attempts. At
//	            most 1000000; a negative number means no limit. Default 2000
//	drainDelay  how long the server goes on as before after SIGTERM, while
//	            /readyz is answered with 503, so that load balancers stop sending
//	            clients here before it refuses them; such as "5s". Default "0s"
//	drainTimeout
//	            how long the shutdown may take after drainDelay. Then connections
//	            and requests that are not finished are cut. At least "10s" is
//	            advised: connections are closed within 5 seconds, and a client has
//	            another 5 to answer. Default "15s"
//	compress    bytes of an event from which it is compressed for WebSockets whose
//	            clients support that (permessage-deflate); a number, or a string
//	            such as "1K". 512 is advised where clients pay for bytes or have
//	            slow networks (docs/compression.md). Default 0: off
//	events      true: serves Server-Sent Events at prefix + "/events", for
//	            EventSource, htmx and Datastar (PROTOCOL.md, section 16). Private
//	            channels need a token of version 2 for a user, which your app
//	            signs, valid for at most an hour, or 10 minutes in the URL.
//	            Default false
//	console     object: serves the console for operators, see below. Default: off
//	limits      object, see below
//	metrics     object: offers the figures of the server to Prometheus at
//	            /metrics. Default: off. One of the keys is needed:
//	  listen  address with a port, such as "127.0.0.1:9123": a listener for
//	          /metrics only, without TLS
//	  token   at least 16 bytes that the Authorization header must have after
//	          "Bearer ". Without listen, /metrics is on the listener of the server
//	webhooks    object, see below. Default: none are sent
//	pusher      object: serves clients with the Pusher protocol at /app/ and
//	            Pusher's HTTP API at /apps/ (docs/pusher.md). Servers with the
//	            same broker must have the same values. Default: off
//	  app            id of the application, which the HTTP API has in its paths
//	  key            its public key, with which clients connect
//	  secret         signs; another one than the keys of the server
//	  oldSecrets     array of secrets that are accepted, too. Default: none
//	  clientEvents   true: the members of private channels can send events to
//	                 each other. Default false
//	  maxEventBytes  of the data of an event that is published with the HTTP
//	                 API; a number, or a string such as "10K". Default 10240
//	broker      object: {"redis": {…}} or {"nats": {…}} connects several
//	            servers, see below. Default: this server is the only one
//	sockjs      object:
//	  prefix            path of the endpoints for browsers.
//	                    Default: the prefix above + "/socket"
//	  websocket         false disables WebSockets, so that clients use other
//	                    transports. Default true
//	  heartbeat_delay   milliseconds between heartbeats. Default 25000
//	  disconnect_delay  milliseconds after which a polling client that sends
//	                    no request is disconnected. Default 5000
//	  response_limit    bytes after which a streaming response ends and the
//	                    client requests the next; a number, or a string such
//	                    as "128K"
//	  jsessionid        true sets the cookie that some load balancers need.
//	                    Default false
//	  sockjs_url        script that the iframe page of old browsers loads
//
// The original's sample has both delays in seconds, so numbers under 1000 are
// read as seconds, with a warning. If any origin is allowed, jsonp and htmlfile
// are served, too, and with sockjs_url the iframe page. Unknown keys in sockjs
// are ignored with a warning; all other unknown keys are errors.
//
// In channels, only the element with the longest prefix that a channel's name
// begins with is used:
//
//	"channels": [
//	  {"prefix": "chat-", "history": 100, "ttl": "5m"},
//	  {"prefix": "private-team-", "history": 50, "perUser": true}
//	]
//
//	prefix       beginning of the names, in lower case; "" is all channels
//	history      number of events that each channel keeps, so that clients that
//	             reconnect receive what they have missed. At most 100000, of
//	             which a client receives at most 500. Default 0
//	ttl          how long they are kept, such as "90s", "5m" or "24h"; from "1s"
//	             to "8784h". Default "24h"
//	access       "public": clients need no token; "private": they need one;
//	             "name": they need one if the name begins with "private-" or
//	             "presence-". Default "name"
//	presence     false: the members of a private channel do not see each other.
//	             Default true
//	perUser      true: the connections whose presence data have the same field
//	             "user" are one member. Default false
//	clientState  true: clients can set a state that the other members see, such
//	             as that they are typing. Default false
//
// In webhooks, which docs/webhooks.md explains; servers with the same broker must
// have the same values:
//
//	url         receives the requests; https, or http for a loopback or private
//	            address
//	format      "standard", or "pusher" for the format of Pusher, which needs
//	            pusher: its key and secret sign. Default "standard"
//	secret      signs them: "whsec_" and the Base64 of 24 to 64 random bytes.
//	            Not with the format "pusher", nor oldSecrets
//	oldSecrets  array of secrets that sign, too, to change the secret.
//	            Default: none
//	events      array. Default ["channel.occupied", "channel.vacated",
//	            "member.joined", "member.left", "channel.miss"]; there are
//	            also "client.event" and, with the format "standard",
//	            "connection.opened" and "connection.closed"
//	channels    array of beginnings of the names of channels, in lower case.
//	            Names with capitals, which only Pusher clients use, are
//	            compared in lower case. Default: all channels
//	delay       how long an event that ends something waits for the user to
//	            return, such as "3s"; at most "1m". "0s" is none. Default "3s"
//
// The broker stores the events that channels keep. Without a broker they are in
// the memory of the server, and are lost when the server ends.
//
// With console, the console of docs/console.md is served under /console/. Browsers
// ask for a name, which is for the log, and the password. After ten wrong passwords
// in a minute, all requests of that IPv4 address or IPv6 /64 are refused for a
// minute. Use it only with ssl or behind a proxy with TLS. All servers with the
// same broker should have it, because each shows the others only if they have it.
//
//	password  at least 12 bytes
//	readOnly  true: nobody can be disconnected, and nothing published.
//	          Default false
//	hosts     array of the names under which the console is reached, such as
//	          "ops.example.com", besides localhost and IP addresses. Default: none
//
// In limits, a number below zero means no limit, and 0 means the default:
//
//	connections    open connections. Default 100000
//	perAddress     open connections from one IPv4 address or IPv6 /64.
//	               Default: no limit. Behind a proxy it needs trustedProxies
//	connectRate    new connections a second from one IPv4 address or IPv6 /64.
//	               Default 10 with trustedProxies, otherwise no limit
//	connectBurst   new connections at once after a pause. Default 50, or
//	               connectRate if that is more
//	acceptRate     new connections a second, and that number at once after a
//	               pause. Up to 200 WebSockets a second more are closed with
//	               code 1013, the others get status 503. Default: no limit
//	publishRate    events a second of triggers and of the signed API. Default:
//	               no limit
//	channels       channels of one connection. Default 200
//	members        members of a channel with presence. Default 1000
//	pagedMembers   the same for clients that do not ask for the whole list.
//	               Default 100000
//	presenceBytes  bytes of one member's data. Default 4096
//	messageBytes   bytes of one client message or HTTP body. Default 65536
//	triggerBytes   bytes of a trigger's body. Default 262144; with channels it
//	               must be less than half of connBuffer
//	commandRate    messages a second from one connection. Default 100
//	commandBurst   messages at once after a pause. Default 200, or channels if
//	               that is more
//	joinRate       subscriptions a second of one connection. Default 50
//	joinBurst      subscriptions at once after a pause. Default 200, or channels
//	               if that is more
//	connBuffer     bytes queued for one connection. Default 1048576
//	maxBuffered    bytes queued for all connections. Default 268435456
//	keepBytes      bytes of the data of the events that one channel keeps.
//	               Default 262144; with channels at least triggerBytes
//	maxMemory      bytes of memory for clients: from 80 % new connections are
//	               refused, from 90 % triggers. Default 75 % of GOMEMLIMIT if
//	               that is set, otherwise off
//	maxKept        memory of this process for events that channels keep.
//	               Default 67108864
//
// In broker.redis, for Redis 6 or newer:
//
//	addresses       array of host:port: the server, the Sentinels, or nodes
//	                of the Cluster. Default ["127.0.0.1:6379"]
//	cluster         true for a Redis Cluster. Default false
//	sentinelMaster  the primary's name, for Sentinel
//	username, password, sentinelUsername, sentinelPassword
//	database        number. Default 0
//	tls, ca, cert, key  see below
//	prefix          of keys and channels; servers with the same prefix act as
//	                one. Default "pushy"
//	requireAtStart  true: do not start if Redis cannot be reached. Default
//	                false: serve only its own clients until it can
//	timeout         time limit of a command in milliseconds. Default 3000
//	checkEveryAppend
//	                true behind a proxy that passes the commands of one
//	                connection to several servers. Default false
//
// In broker.nats, for NATS 2.9 or newer with JetStream:
//
//	url             nats://host:port or tls://host:port; several servers of a
//	                cluster with commas between. Default "nats://127.0.0.1:4222"
//	user, password  or
//	token           or
//	credentials     .creds file, or
//	nkey            file with an nkey's seed: at most one of these four
//	tls, ca, cert, key  see below
//	prefix          of subjects and of the streams' names; servers with the
//	                same prefix act as one. Default "pushy"
//	inboxPrefix     of the subjects for answers. Default "_INBOX"
//	requireAtStart  true: do not start if NATS cannot be reached. Default
//	                false: serve only its own clients until it can
//	timeout         time limit of a request in milliseconds. Default 3000
//	replicas        servers of a NATS cluster that keep each stream. Default 1
//	files           true keeps members and kept events in files. Default
//	                false: in memory
//	maxBytes        maximum size of each stream, for accounts that require one.
//	                Default: no limit
//
// If a server does not renew its lease for the time of grace, the other servers
// remove its members. Both brokers also have these keys:
//
//	tls   true encrypts the connection. Default: true if one of the next keys
//	      is given, otherwise false
//	ca    PEM file of the authorities that sign the broker's certificate.
//	      Default: those that the system trusts
//	cert  PEM file of this server's certificate for the broker, and
//	key   PEM file of its private key; give both or neither
//
// # Environment
//
// PUSHY_SECRET_KEY, unless it is empty, replaces secretKey of the file,
// PUSHY_WEBHOOK_SECRET the secret of webhooks, PUSHY_PUSHER_SECRET that of
// pusher, and PUSHY_CONSOLE_PASSWORD the password of the console.
// PUSHY_REDIS_PASSWORD, PUSHY_REDIS_SENTINEL_PASSWORD, PUSHY_NATS_PASSWORD and
// PUSHY_NATS_TOKEN do the same for the password, sentinelPassword and token of
// their broker, and PUSHY_METRICS_TOKEN for metrics.token.
//
// # Running
//
// The log goes to standard error: as text if that is a terminal, otherwise as one
// JSON object a line. Once an hour it says which of oldSecretKeys were used, and
// whether version 1 was. GET /healthz is answered with 200 while the process lives.
// GET /readyz is answered with 200, and with 503 and the reason while the server
// shuts down or uses more than 90 % of limits.maxMemory.
//
// SIGTERM and SIGINT shut the server down: /readyz is answered with 503, after
// drainDelay new connections are refused, and clients receive the events that are
// queued for them, the time after which they are to reconnect, and a close code. The
// server ends within drainDelay and drainTimeout together. A second signal ends it
// immediately. SIGHUP reads the certificates again, those for the broker included; if
// that fails, the server keeps the old ones.
//
// The exit status is 0 after a shutdown, 1 if the server could not listen or had
// to close connections that were still busy, and 2 if the command line, the
// config file or a file that it names is wrong; then one line says what is wrong
// and where.
package main
