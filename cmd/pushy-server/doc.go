// Pushy-server is the stand-alone pushy server. It takes the config file of the
// Node original unchanged:
//
//	pushy-server [-check] config.json
//	pushy-server trigger [flags] CHANNEL EVENT [DATA]
//	pushy-server listen [flags] CHANNEL...
//	pushy-server version
//	pushy-server help [trigger | listen]
//
// trigger publishes an event to a running server, listen prints the events of
// channels; each has a -h of its own.
//
//	-check    check the config file, the files that it names and the
//	          broker's settings, log what the server would warn of, print
//	          where it would listen, and exit; it connects to nothing
//	-version  print the version
//	-h        print this
//
// # Config
//
// The file contains one JSON object. Key names are case-sensitive, no key may
// be given twice, and comments are not allowed. Only secretKey is required.
// Names of files are relative to the config file's directory.
//
//	port        number, also as a string; 0 picks a free one. Default 8123
//	host        address or name to listen on. Default: all interfaces
//	secretKey   signs and checks triggers and tokens
//	ssl         true serves HTTPS. Default false
//	cert, key   PEM files of the certificate (its chain after it) and of its
//	            private key; ssl needs both
//	origins     array of origins whose pages may connect, such as
//	            "https://app.example.com"; "*" is any. Pages of the server's
//	            own origin always may. Default: any; [] allows no others
//	prefix      path of triggers and client files. Default "/pushy"
//	allowPrivateEvents
//	            true lets triggers publish events whose names begin with
//	            "private-" or "presence-" (PROTOCOL.md, D25). Default false
//	trustedProxies
//	            array of addresses and networks such as "10.0.0.0/8" of proxies
//	            whose X-Forwarded-For names the client, for limits.perAddress.
//	            Default: none, the connection's address is the client's
//	limits      object, see below
//	broker      object: {"redis": {…}} or {"nats": {…}} connects several
//	            servers, see below. Default: there is one server only
//	sockjs      object:
//	  prefix            path of what browsers connect to.
//	                    Default: the prefix above + "/socket"
//	  websocket         false makes clients use other transports.
//	                    Default true
//	  heartbeat_delay   milliseconds between heartbeats. Default 25000
//	  disconnect_delay  milliseconds after which a polling client that sends
//	                    no request is disconnected. Default 5000
//	  response_limit    bytes that a stream carries before the client opens
//	                    the next; a number, or a string such as "128K"
//	  jsessionid        true sets the cookie that some load balancers need.
//	                    Default false
//	  sockjs_url        script that the iframe page of old browsers loads
//
// The original's sample has both delays in seconds, so numbers under 1000 are
// read as seconds, with a warning. While any origin is allowed, jsonp and
// htmlfile are served, too, and with sockjs_url the iframe page. Other keys in
// sockjs are ignored with a warning; anywhere else an unknown key is an error.
//
// In limits a number below zero means no limit, 0 the default:
//
//	connections    open at the same time. Default 100000
//	perAddress     of these, from one IPv4 address or IPv6 /64. Default: no
//	               limit. Behind a proxy it needs trustedProxies
//	channels       of one connection. Default 200
//	members        of a channel with presence. Default 1000
//	presenceBytes  of one member's data. Default 4096
//	messageBytes   of one client message or HTTP body. Default 65536
//	triggerBytes   of a trigger's body. Default 262144
//	commandRate    messages a second from one connection. Default 100
//	commandBurst   messages at once after a pause. Default 200
//	connBuffer     bytes queued for one connection. Default 1048576
//	maxBuffered    bytes queued for all connections. Default 268435456
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
//	requireAtStart  true: do not start when Redis cannot be reached. Default
//	                false: serve its own clients only, until it can
//	timeout         milliseconds that a command may take. Default 3000
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
//	requireAtStart  true: do not start when NATS cannot be reached. Default
//	                false: serve its own clients only, until it can
//	timeout         milliseconds that a request may take. Default 3000
//	replicas        servers of a NATS cluster that keep each stream. Default 1
//	files           true keeps members and kept events in files. Default
//	                false: in memory
//	maxBytes        size that each stream may reach, for accounts that require
//	                one. Default: no limit
//
// A server that is silent for 15 seconds counts as dead: the others remove its
// members. In both:
//
//	tls   true encrypts the connection. Default: true if one of the next is
//	      given, else false
//	ca    PEM file of the authorities that sign the broker's certificate.
//	      Default: those that the system trusts
//	cert  PEM file of this server's certificate for the broker, and
//	key   that of its private key: both or none
//
// # Environment
//
// PUSHY_SECRET_KEY, unless empty, replaces the file's secretKey, and
// PUSHY_REDIS_PASSWORD, PUSHY_REDIS_SENTINEL_PASSWORD, PUSHY_NATS_PASSWORD and
// PUSHY_NATS_TOKEN replace the keys of those names.
//
// # Running
//
// The log goes to standard error: text on a terminal, otherwise one JSON object
// a line. GET /healthz answers 200 "ok", and 503 while the server shuts down.
//
// SIGTERM and SIGINT shut the server down: clients receive a close code that
// lets them reconnect, after what is queued for them, within 15 seconds. A
// second signal ends it immediately. SIGHUP reads the certificates again, the
// broker's too; if that fails the server keeps the old ones.
//
// The exit status is 0 after a shutdown, 1 if the server could not listen or
// had to close connections that were still busy, 2 if the command line, the
// config file or a file that it names is wrong: then one line says what and
// where.
package main
