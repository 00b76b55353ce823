package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// brokerTLS has the TLS settings of a broker. All brokers have the same keys.
type brokerTLS struct {
	on                *bool  // nil if the file does not have the key
	ca                string // file with the authorities to trust instead of the system's
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

// beside resolves the names of the files relative to the config file.
func (t *brokerTLS) beside(configFile string) {
	for _, name := range []*string{&t.ca, &t.certFile, &t.keyFile} {
		if *name != "" {
			*name = beside(configFile, *name)
		}
	}
}

// load reads the files. It returns nil if TLS is off; any of the files turns it on. It
// also returns the certificate, if there is one. The error begins with the key that is
// wrong, without the prefix of the broker's keys.
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
	// The func is called at each handshake, so a reload takes effect with the next connection.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return cert.current.Load(), nil
	}
	return c, cert, nil
}
