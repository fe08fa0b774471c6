package caserver

import (
	"crypto/tls"
	"net"
	"testing"
)

// TestConnectionsKeepNoCertificates: of many idle connections each would hold
// some KiB that nobody asks for again. What they prove is kept.
func TestConnectionsKeepNoCertificates(t *testing.T) {
	r := newRig(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	shaken := make(chan error, 1)
	config := r.config(r.client())
	config.NextProtos = []string{"h2"}
	go func() {
		client := tls.Client(theirs, config)
		err := client.Handshake()
		if err == nil {
			_, err = client.Write([]byte("x")) // its certificate has been read by then
		}
		shaken <- err
	}()
	conn, info, err := newHandshaker(r.server).ServerHandshake(ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	if p := info.(proven); p.client == nil || p.client.ID() != sleep || p.clientErr != nil {
		t.Errorf("proven is %+v", p)
	}
	for _, cert := range conn.(*tls.Conn).ConnectionState().PeerCertificates {
		if cert != nil {
			t.Errorf("the connection holds %s", cert.Subject)
		}
	}
}
