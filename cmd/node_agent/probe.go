package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent/certdir"
)

// probe asks a server how it is, as this host.
type probe struct {
	dir         certdir.Dir
	plain, mtls bool
	serverID    string
	timeout     time.Duration
}

func newProbe(stdout io.Writer) *cobra.Command {
	p := probe{}
	cmd := &cobra.Command{Use: "probe URL", Short: "Ask a server of the mesh how it is, with this host's certificate: for exec probes",
		Long: "probe fetches a URL over mutual TLS of the mesh, with the certificate files of the agent, whether that runs or not. A server\n" +
			"that speaks no TLS is asked in plain text; so the same probe does while policy says STRICT, PERMISSIVE or DISABLE. What is\n" +
			"inside is HTTP, or for https:// the application's own TLS, whose certificate is not checked, as probes of the kubelet do not.\n" +
			"Redirects are not followed. It exits with 0 for an answer of 200 to 399, with 1 for any other end, and says which.",
		Example: `  node_agent probe http://10.0.0.7:8080/healthz
  node_agent probe --mtls --server-id spiffe://cluster.local/ns/shop/sa/orders http://orders.shop:8080/healthz`}
	folder := cmp.Or(os.Getenv("CERTS_DIR"), certsFolder)
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&p.dir.Key, "key", filepath.Join(folder, "key.pem"), "`file` of the private key (environment CERTS_DIR names another folder for all three)")
	f.StringVar(&p.dir.Chain, "cert-chain", filepath.Join(folder, "cert-chain.pem"), "`file` of the certificate and its issuers")
	f.StringVar(&p.dir.Roots, "root-cert", filepath.Join(folder, "root-cert.pem"), "`file` of the roots")
	f.StringVar(&p.serverID, "server-id", "", "`SPIFFE ID` that the server must prove; empty: any that the roots vouch for")
	f.BoolVar(&p.mtls, "mtls", false, "mutual TLS alone: a server without it is not well")
	f.BoolVar(&p.plain, "plain", false, "no mutual TLS, and no certificate files")
	f.DurationVar(&p.timeout, "timeout", 5*time.Second, "for all of it")
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target, authorize, err := p.check(args)
		if err != nil {
			return daemon.UsageError{Err: err}
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), p.timeout, fmt.Errorf("it took longer than --timeout=%s", p.timeout))
		defer cancel()
		told, err := p.ask(ctx, target, authorize)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", target.Redacted(), err)
		}
		_, err = fmt.Fprintln(stdout, told)
		return err
	}
	return cmd
}

// check reads the arguments.
func (p *probe) check(args []string) (*url.URL, tlsconfig.Authorizer, error) {
	if len(args) != 1 {
		return nil, nil, errors.New("probe: give one URL")
	}
	var problems []error
	target, err := url.Parse(args[0])
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Hostname() == "" {
		problems = append(problems, fmt.Errorf("probe: %q is no URL of http or https", args[0]))
	}
	if p.plain && (p.mtls || p.serverID != "") {
		problems = append(problems, errors.New("--plain contradicts --mtls and --server-id"))
	}
	if p.timeout <= 0 {
		problems = append(problems, fmt.Errorf("--timeout: %s is no time", p.timeout))
	}
	authorize := tlsconfig.AuthorizeAny()
	if p.serverID != "" {
		id, err := spiffeid.FromString(p.serverID)
		if err != nil {
			problems = append(problems, fmt.Errorf("--server-id: %q is no SPIFFE ID: %w", p.serverID, err))
		}
		authorize = tlsconfig.AuthorizeID(id)
		p.mtls = true
	}
	return target, authorize, errors.Join(problems...)
}

// ask fetches the URL, and tells of an answer that says that all is well.
func (p *probe) ask(ctx context.Context, target *url.URL, authorize tlsconfig.Authorizer) (string, error) {
	if p.plain {
		return fetch(ctx, target, nil)
	}
	held, err := p.dir.Load()
	if err != nil {
		return "", fmt.Errorf("this host's certificate: %w", err)
	}
	if until := held.SVID.Certificates[0].NotAfter; time.Now().After(until) {
		return "", fmt.Errorf("this host's certificate ended at %s: node_agent status tells why it is not renewed", until.UTC().Format(time.RFC3339))
	}
	mesh := tlsconfig.MTLSClientConfig(held.SVID, held.Roots, authorize)
	mesh.NextProtos = []string{"istio"} // by which a PERMISSIVE server knows clients of the mesh
	mesh.ServerName = target.Hostname()
	told, err := fetch(ctx, target, mesh)
	if err == nil || p.mtls || !speaksNoMesh(err, target.Scheme == "https") {
		return told, err
	}
	told, plainErr := fetch(ctx, target, nil)
	if plainErr != nil {
		return "", fmt.Errorf("%w; and without it: %w", err, plainErr)
	}
	return told, nil
}

// outer is an error of the mutual TLS, before anything was asked.
type outer struct{ error }

// Unwrap is of errors.
func (o outer) Unwrap() error { return o.error }

// speaksNoMesh tells whether the server has shown that it does not speak mutual
// TLS of the mesh: no TLS at all, or where the application has its own, that.
func speaksNoMesh(err error, ownTLS bool) bool {
	var o outer
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case !errors.As(err, &o):
		return false
	case errors.As(err, &record), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	}
	return ownTLS && (errors.As(err, &certificate) || isVerification(err) || strings.Contains(err.Error(), "no application protocol"))
}

// isVerification tells errors of go-spiffe's verification, which have no type.
func isVerification(err error) bool { return strings.Contains(err.Error(), "x509svid: ") }

// fetch asks once; mesh is nil for plain text.
func fetch(ctx context.Context, target *url.URL, mesh *tls.Config) (string, error) {
	over := "plain text"
	if target.Scheme == "https" {
		over = "the application's own TLS"
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || mesh == nil {
			return c, err
		}
		conn := tls.Client(c, mesh)
		if err := conn.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, outer{fmt.Errorf("mutual TLS with %s: %w", address, err)}
		}
		if id, err := x509svid.IDFromCert(conn.ConnectionState().PeerCertificates[0]); err == nil {
			over = "mutual TLS, from " + id.String()
		}
		return conn, nil
	}
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // of the application's own, see Long
		DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("User-Agent", "node_agent-probe/"+daemon.BuildVersion().Version)
	response, err := transport.RoundTrip(request)
	if _, is := errors.AsType[tls.RecordHeaderError](err); is && target.Scheme == "https" && over != "the application's own TLS" {
		return "", fmt.Errorf("%w: over %s, the application speaks no TLS of its own: ask for http://", err, over)
	}
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	const enough = 10 << 10
	body, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		first, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return "", fmt.Errorf("%s over %s: %.200q", response.Status, over, first)
	}
	return response.Status + " over " + over, nil
}
