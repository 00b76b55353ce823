package token_test

import (
	"testing"
	"time"

	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/token"
)

const benchConn = "3c8f1f6e-0a5c-4f5c-9d0e-0123456789ab"

func BenchmarkVerify(b *testing.B) {
	secret := "a secret of more than sixteen bytes"
	keys := token.NewKeys([]string{secret})
	now := time.Unix(1700000000, 0)
	signed, err := token.Sign(secret, token.Claims{
		Channels: []string{"private-room"},
		Conn:     benchConn,
		Issued:   now,
		Expires:  now.Add(time.Hour),
		Data:     []byte(`{"name":"Ann"}`),
	}, now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c, _, err := keys.Verify(signed, now)
		if err != nil || !c.Covers("private-room") {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyV1 is the same for a token of version 1.
func BenchmarkVerifyV1(b *testing.B) {
	keys := []string{"a secret of more than sixteen bytes"}
	data := []byte(`{"name":"Ann"}`)
	signed := sign.Channel(keys[0], benchConn, "private-room", data)
	b.ReportAllocs()
	for b.Loop() {
		if !sign.TokenValid(keys, signed, benchConn, "private-room", data) {
			b.Fatal("not valid")
		}
	}
}
