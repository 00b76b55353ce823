// Pushy-server is the stand-alone pushy server. It takes the config file of the
// Node original unchanged:
//
//	pushy-server [-check] config.json
//	pushy-server trigger [flags] CHANNEL EVENT [DATA]
//	pushy-server listen [flags] CHANNEL...
//
// trigger publishes an event to a server that runs, listen prints what comes;
// each has a -h of its own.
//
//	-check    check the file and its certificate, say what would be
//	          listened on, and end
//	-version  print the version
//	-h        print this
//
// # Config
//
// The file holds one JSON object. Key names match exactly, each may stand once,
// comments are not allowed. Only secretKey must be there.
//
//	port        number, also as text; 0 picks a free one. Default 8123
//	host        address or name to listen on. Default: all interfaces
//	secretKey   signs and checks triggers and tokens
//	ssl         true serves HTTPS. Default false
//	cert, key   PEM files of the certificate (its chain after it) and of its
//	            private key, from the config file's folder; ssl needs both
//	origins     array of origins whose pages may connect, such as
//	            "https://app.example.com"; "*" is any. Pages of the server's
//	            own origin always may. Default: any; [] is the own one alone
//	prefix      path of triggers and client files. Default "/pushy"
//	limits      object, see below
//	broker      object: {"redis": {…}} or {"nats": {…}} connects several
//	            servers, see below. Default: this server is alone
//	sockjs      object:
//	  prefix            path of what browsers connect to.
//	                    Default: the prefix above + "/socket"
//	  websocket         false makes clients use other transports.
//	                    Default true
//	  heartbeat_delay   milliseconds between heartbeats. Default 25000
//	  disconnect_delay  milliseconds after which a polling client that does
//	                    not come back is gone. Default 5000
//	  response_limit    bytes that a stream carries before the client opens
//	                    the next; a number, or a text such as "128K"
//	  jsessionid        true sets the cookie that some load balancers need.
//	                    Default false
//	  sockjs_url        script that the iframe page of old browsers loads
//
// The original's sample has both delays in seconds, so numbers under 1000 are
// read as seconds, with a warning. While any origin is allowed, jsonp and
// htmlfile are served, too, and with sockjs_url the iframe page. Other keys in
// sockjs are ignored with a warning; anywhere else an unknown key is an error.
//
// In limits a number under zero means no limit, 0 the default:
//
//	connections    at once. Default 100000
//	channels       of one connection. Default 200
//	members        of a channel with presence. Default 1000
//	presenceBytes  of one member's data. Default 4096
//	messageBytes   of one client message or HTTP body. Default 65536
//	triggerBytes   of a trigger's body. Default 262144
//	commandRate    messages a second from one connection. Default 100
//	commandBurst   and at once after a pause. Default 200
//	connBuffer     bytes that wait for one connection. Default 1048576
//	maxBuffered    bytes that wait for all together. Default 268435456
//
// In broker.redis, for Redis 6 or newer:
//
//	addresses       array of host:port: the server, the Sentinels, or nodes of
//	                the Cluster. Default ["127.0.0.1:6379"]
//	cluster         true for a Redis Cluster. Default false
//	sentinelMaster  the master's name, for Sentinel
//	username, password, sentinelUsername, sentinelPassword
//	database        number. Default 0
//	tls             true encrypts. Default false
//	prefix          of keys and channels; servers with the same act as one.
//	                Default "pushy"
//	requireAtStart  true ends the start when Redis cannot be reached.
//	                Default false: the server is alone until it can
//	timeout         milliseconds that a command may take. Default 3000
//	lease           milliseconds after which a server that is silent counts
//	                as dead, and its members as gone. Default 15000
//
// In broker.nats, for NATS 2.9 or newer with JetStream:
//
//	url             nats://host:port or tls://; several with commas between.
//	                Default "nats://127.0.0.1:4222"
//	user, password, token
//	credentials     .creds file, from the config file's folder
//	tls             true encrypts. Default false
//	prefix          of subjects and of the stream's name; servers with the
//	                same act as one. Default "pushy"
//	requireAtStart  true ends the start when NATS cannot be reached.
//	                Default false: the server is alone until it can
//	timeout         milliseconds that a request may take. Default 3000
//	lease           milliseconds after which a server that is silent counts
//	                as dead, and its members as gone. Default 15000
//	replicas        servers of a NATS cluster that keep presence. Default 1
//	memory          true keeps it in their memory. Default false: in files
//
// # Environment
//
// PUSHY_SECRET_KEY, unless empty, is used in place of the file's secretKey;
// PUSHY_REDIS_PASSWORD, PUSHY_REDIS_SENTINEL_PASSWORD, PUSHY_NATS_PASSWORD and
// PUSHY_NATS_TOKEN likewise.
//
// # Running
//
// The log goes to standard error: text on a terminal, else a JSON object a
// line. GET /healthz answers 200 "ok", and 503 while the server shuts down.
//
// SIGTERM and SIGINT shut it down: clients are told with close code 3001, what
// waits for them is still written, within 15 seconds. A second one ends it at
// once. SIGHUP reads the certificate again; if that fails the old one stays.
//
// The exit status is 0 after a shutdown, 1 if it could not listen or had to cut
// what was left, 2 if the command line, the config file or the certificate is
// wrong: then one line says what and where.
package main
