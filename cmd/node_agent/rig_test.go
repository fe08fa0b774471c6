package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/catest"
	"citadel/nodeagent/certdir"
)

// output is where a test's agent writes, from many goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	wait string       // guarded by mu
	seen chan struct{}
}

// waits returns an output that closes seen when a text has been written.
func waits(text string) *output { return &output{wait: text, seen: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	if o.wait != "" && strings.Contains(o.text.String(), o.wait) {
		o.wait = ""
		close(o.seen)
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// nothingToJoinWith is what an agent says that has accepted its flags, and has
// nothing else.
const nothingToJoinWith = "there is nothing to join with"

// runAgent runs an agent in this process, in folders of its own, which flags
// may change, and stops it when it has said that it has nothing to join with:
// exit code 0 means that the flags were accepted.
func runAgent(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out output
	log := waits(nothingToJoinWith)
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, append(folders(t), args...), &out, log) }()
	select {
	case <-log.seen:
		cancel()
		code = <-ended
	case code = <-ended:
	}
	return code, out.String(), log.String()
}

// folders are the flags of an agent that touches nothing but a folder of the
// test's.
func folders(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	return []string{"--monitoring-port=0", "--control-socket=", "--state-dir=" + filepath.Join(dir, "state"),
		"--key=" + filepath.Join(dir, "key.pem"), "--cert-chain=" + filepath.Join(dir, "cert-chain.pem"), "--root-cert=" + filepath.Join(dir, "root-cert.pem")}
}

var web = spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/web")

// madeAt is a set of an hour from now on, by a root.
func madeAt(t *testing.T, root *catest.Issuer, now time.Time) certdir.Set {
	t.Helper()
	leaf := root.Leaf(t, now, web)
	return certdir.Set{SVID: &x509svid.SVID{ID: web, Certificates: leaf.Chain(), PrivateKey: leaf.Key},
		Roots: x509bundle.FromX509Authorities(web.TrustDomain(), []*x509.Certificate{root.Root().Cert})}
}

func setOf(set certdir.Set, err error) func() (certdir.Set, error) {
	return func() (certdir.Set, error) { return set, err }
}
