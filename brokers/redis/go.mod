module github.com/gopushy/pushy/brokers/redis

go 1.25.0

require (
	github.com/gopushy/pushy v0.1.0
	github.com/redis/rueidis v1.0.79
	github.com/stretchr/testify v1.11.1
	golang.org/x/sync v0.17.0
)

require (
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/pool v0.2.1 // indirect
	github.com/gobwas/ws v1.4.0 // indirect
	github.com/gorilla/websocket v1.4.2 // indirect
	github.com/igm/sockjs-go/v3 v3.0.3 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
