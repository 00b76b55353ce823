module github.com/gopushy/pushy/test/streams

go 1.26.0

require (
	github.com/gopushy/pushy v0.1.0
	github.com/r3labs/sse/v2 v2.10.0
	github.com/starfederation/datastar-go v1.2.2
	github.com/stretchr/testify v1.11.1
	github.com/tmaxmax/go-sse v0.12.0
	gopkg.in/cenkalti/backoff.v1 v1.1.0
)

require (
	github.com/CAFxX/httpcompression v0.0.9 // indirect
	github.com/andybalholm/brotli v1.2.0 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/pool v0.2.1 // indirect
	github.com/gobwas/ws v1.4.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	golang.org/x/net v0.0.0-20191116160921-f9c825593386 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/gopushy/pushy => ../..
