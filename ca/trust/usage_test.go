package trust_test

import (
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"citadel/ca/trust"
)

func TestServesBothSides(t *testing.T) {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	ownMaking := []asn1.ObjectIdentifier{{1, 2, 3}}
	for name, c := range map[string]struct {
		leaf x509.Certificate
		want bool
	}{
		"none":                      {x509.Certificate{}, true},
		"both":                      {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{client, server}}, true},
		"both and others":           {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning, server, client}, UnknownExtKeyUsage: ownMaking}, true},
		"server alone":              {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{server}}, false},
		"client alone":              {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{client}}, false},
		"any, which is not both":    {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}, false},
		"one of its own making":     {x509.Certificate{UnknownExtKeyUsage: ownMaking}, false},
		"server and an unknown one": {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{server}, UnknownExtKeyUsage: ownMaking}, false},
	} {
		if got := trust.ServesBothSides(&c.leaf); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
