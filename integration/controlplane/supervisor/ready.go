package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	pollInterval = 25 * time.Millisecond
	probeTimeout = 5 * time.Second
	answerLimit  = 64 << 10
)

// probes ask components whether they are ready.
type probes struct {
	etcd, kube *http.Client
	ports      ports
	node       *nodeSide
}

func newProbes(l layout, p ports) (*probes, error) {
	etcd, err := newProbeClient(l, etcdCAName, etcdClientName)
	if err != nil {
		return nil, err
	}
	kube, err := newProbeClient(l, caName, supervisorName)
	if err != nil {
		return nil, err
	}
	return &probes{etcd: etcd, kube: kube, ports: p}, nil
}

func newProbeClient(l layout, ca, client string) (*http.Client, error) {
	roots := x509.NewCertPool()
	text, err := os.ReadFile(l.certificate(ca))
	if err != nil {
		return nil, fmt.Errorf("read the CA %s: %w", ca, err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the CA %s: no certificate in %s", ca, l.certificate(ca))
	}
	pair, err := tls.LoadX509KeyPair(l.certificate(client), l.key(client))
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s: %w", client, err)
	}
	return &http.Client{
		Timeout: probeTimeout,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
			DisableKeepAlives: true, // what is probed restarts
		},
	}, nil
}

// ready is nil when the component can be used by those that build on it.
func (p *probes) ready(ctx context.Context, c Component) error {
	switch c {
	case Etcd:
		_, err := get(ctx, p.etcd, p.ports.Etcd, "/readyz")
		return err
	case APIServer:
		_, err := get(ctx, p.kube, p.ports.APIServer, "/readyz")
		return err
	case ControllerManager:
		if err := p.managerReady(ctx); err != nil {
			return err
		}
		// The first thing that anyone needs of the controllers.
		_, err := get(ctx, p.kube, p.ports.APIServer, "/api/v1/namespaces/default/serviceaccounts/default")
		return err
	}
	return p.nodeReady(ctx, c)
}

// managerReady is nil when the controllers are made. The controller manager is
// healthy before, too, but lists no health check of theirs.
func (p *probes) managerReady(ctx context.Context) error {
	text, err := get(ctx, p.kube, p.ports.ControllerManager, "/healthz?verbose")
	if err != nil {
		return err
	}
	if !strings.Contains(text, "serviceaccount-controller") {
		return errors.New("its controllers are not made yet")
	}
	return nil
}

// get returns what the path has to say, when that is a success.
func get(ctx context.Context, client *http.Client, port int, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+loopback(port)+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return "", fmt.Errorf("get %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: %s: %s", path, response.Status, text)
	}
	return string(text), nil
}
