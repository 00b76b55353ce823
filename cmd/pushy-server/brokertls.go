package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// brokerTLS is how a broker is reached over TLS: the same keys for all of them.
type brokerTLS struct {
	on                *bool  // nil if the file does not say
	ca                string // file with the authorities to trust in place of the system's
	certFile, keyFile string // this server's certificate for the broker
}

func tlsSettings(path string) []setting {
	const fileRule = "the name of a file"
	return []setting{
		{path + "tls", "true or false", func(c *config, v json.RawMessage) bool { return decode(v, &c.brokerTLS.on) }},
		{path + "ca", fileRule, nonEmpty(func(c *config) *string { return &c.brokerTLS.ca })},
		{path + "cert", fileRule, nonEmpty(func(c *config) *string { return &c.brokerTLS.certFile })},
		{path + "key", fileRule, nonEmpty(func(c *config) *string { return &c.brokerTLS.keyFile })},
	}
}

// beside makes the files' names relative to the config file.
func (t *brokerTLS) beside(configFile string) {
	for _, name := range []*string{&t.ca, &t.certFile, &t.keyFile} {
		if *name != "" {
			*name = beside(configFile, *name)
		}
	}
}

// load reads the files. It returns nil without TLS, which any of the files turns
// on, and the certificate, if there is one. The error begins with the key that is
// to blame, without what all keys of the broker begin with.
func (t *brokerTLS) load() (*tls.Config, *certificate, error) {
	for _, file := range []struct{ key, name string }{
		{"ca", t.ca},
		{"cert", t.certFile},
		{"key", t.keyFile},
	} {
		if file.name != "" && t.on != nil && !*t.on {
			return nil, nil, fmt.Errorf("%s is given, but tls is false", file.key)
		}
	}
	switch {
	case t.certFile == "" && t.keyFile != "":
		return nil, nil, errors.New("cert is missing: key needs it")
	case t.certFile != "" && t.keyFile == "":
		return nil, nil, errors.New("key is missing: cert needs it")
	case t.ca == "" && t.certFile == "" && (t.on == nil || !*t.on):
		return nil, nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		text, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, nil, fmt.Errorf("ca: %s has no certificate in PEM form", t.ca)
		}
	}
	if t.certFile == "" {
		return c, nil, nil
	}
	cert := &certificate{certFile: t.certFile, keyFile: t.keyFile}
	if err := cert.load(); err != nil {
		return nil, nil, err
	}
	// Asked at each handshake, so that a reload counts from the next connection on.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return cert.current.Load(), nil
	}
	return c, cert, nil
}
