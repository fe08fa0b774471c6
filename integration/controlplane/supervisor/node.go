package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"citadel/integration/controlplane/node"
)

// nodeName is the node's.
const nodeName = "node-1"

// sweeper is the process that removes what a node leaves behind. It is no
// component: it starts first and outlives up, also one that is killed.
const sweeper Component = "sweeper"

// nodeSide is what a supervisor does for its node.
type nodeSide struct {
	node    node.Node
	held    net.Listener // keeps other clusters from the node's network link
	gateway *gateway
	sweeper *process
	kube    *http.Client
	ports   ports
	pid     int // of the first process
}

// addNode makes the node a part of the cluster.
func (s *supervisor) addNode() error {
	if err := node.Check(); err != nil {
		return err
	}
	link, held, err := reserveLink()
	if err != nil {
		return err
	}
	n := node.New(nodeName, s.layout.nodeDir(), link)
	s.node = &nodeSide{node: n, held: held, kube: s.probes.kube, ports: s.probes.ports}
	s.probes.node = s.node
	server := net.JoinHostPort(link.Host.Addr().String(), strconv.Itoa(s.probes.ports.APIServer))
	err = errors.Join(
		writeKubeconfig(s.layout, loopback(s.probes.ports.APIServer), schedulerName, s.layout.schedulerKubeconfig()),
		writeKubeconfig(s.layout, server, kubeletName, s.layout.kubeletKubeconfig()),
		writeKubeconfig(s.layout, server, proxyName, s.layout.proxyKubeconfig()),
		n.WriteFiles(s.layout.proxyKubeconfig(), s.layout.certificate(caName)))
	if err != nil {
		return errors.Join(err, held.Close())
	}
	s.node.sweeper, err = s.spawner.spawn(sweeper, []string{n.Cgroup(), n.Dir}, s.layout.log(sweeper))
	if err != nil {
		return errors.Join(err, held.Close())
	}
	entered := func(args []string) []string { return append([]string{n.PIDFile()}, args...) }
	s.args[Scheduler] = schedulerArgs(s.layout, s.probes.ports)
	s.args[Node] = firstArgs(n)
	s.args[Containerd] = entered(n.ContainerdArgs())
	s.args[Kubelet] = entered(n.KubeletArgs(s.layout.kubeletKubeconfig()))
	s.args[Proxy] = entered(n.ProxyArgs())
	s.args[DNS] = entered(n.DNSArgs(s.layout.proxyKubeconfig()))
	return nil
}

// firstArgs tells a child which node it is the first process of; ParseFirst
// reads them.
func firstArgs(n node.Node) []string {
	text, _ := json.Marshal(n) // addresses and strings
	return []string{string(text)}
}

// ParseFirst is the node that the arguments of component Node are about.
func ParseFirst(args []string) (n node.Node, err error) {
	if len(args) != 1 {
		return n, errors.New("the first process of a node takes one argument")
	}
	return n, json.Unmarshal([]byte(args[0]), &n)
}

// reserveLink finds a network link whose addresses are nobody's on this machine,
// and holds it as long as this process lives.
func reserveLink() (node.Link, net.Listener, error) {
	machine, err := node.MachinePrefixes()
	if err != nil {
		return node.Link{}, nil, err
	}
	var clash netip.Prefix
	for i := range node.Links {
		held, err := net.Listen("unix", fmt.Sprintf("@controlplane-link-%d", i))
		if err != nil {
			continue // another cluster's
		}
		link := node.NumberedLink(i)
		taken, clashes := link.Clash(machine)
		if link.Free() && !clashes {
			return link, held, nil
		}
		if clashes {
			clash = taken
		}
		held.Close()
	}
	if clash.IsValid() {
		return node.Link{}, nil, fmt.Errorf("a node needs two networks of 10.250.0.0/16 and 10.244.0.0/16, and this machine reaches others there, such as %s (see: ip route): "+
			"take down what has them, a bridge of another cluster for one, while the node is up", clash)
	}
	return node.Link{}, nil, fmt.Errorf("all %d network links of nodes are taken", node.Links)
}

// connect joins the new namespaces to this machine, and lets in who asks the
// API server from there.
func (n *nodeSide) connect(ctx context.Context, first *process) (err error) {
	n.pid = first.command.Process.Pid
	if err := os.WriteFile(n.node.PIDFile(), []byte(strconv.Itoa(n.pid)), 0o600); err != nil {
		return fmt.Errorf("tell who the node is: %w", err)
	}
	if err := n.node.Link.Connect(ctx, n.pid); err != nil {
		return fmt.Errorf("connect the node: %w", err)
	}
	if n.gateway == nil {
		n.gateway, err = openGateway(n.node.Link.Host.Addr(), n.ports.APIServer)
	}
	if err != nil {
		return err
	}
	return n.publish(ctx)
}

// object is one of Kubernetes' as JSON has it.
type object = map[string]any

// publish says where two services are that no pod serves: the API server, which
// is on loopback and would not say it of itself, and the cluster's DNS.
func (n *nodeSide) publish(ctx context.Context) error {
	port := func(name, protocol string, number int) object {
		return object{"name": name, "protocol": protocol, "port": number}
	}
	dns := []any{port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)}
	return errors.Join(
		n.apply(ctx, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
			slice("kubernetes", n.node.Link.Host.Addr(), port("https", "TCP", n.ports.APIServer))),
		n.apply(ctx, "/api/v1/namespaces/kube-system/services/kube-dns", object{
			"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "kube-dns"},
			"spec": object{"clusterIP": n.node.DNS.String(), "ports": dns}}),
		n.apply(ctx, "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns", slice("kube-dns", n.node.Link.Node.Addr(), dns...)))
}

// slice is the one endpoint of a service.
func slice(service string, address netip.Addr, ports ...any) object {
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  object{"name": service, "labels": object{"kubernetes.io/service-name": service}},
		"endpoints": []any{object{"addresses": []string{address.String()}, "conditions": object{"ready": true}}},
		"ports":     ports,
	}
}

// apply puts an object into the cluster, server-side.
func (n *nodeSide) apply(ctx context.Context, path string, o object) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	url := "https://" + loopback(n.ports.APIServer) + path + "?fieldManager=controlplane&force=true"
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/apply-patch+yaml")
	response, err := n.kube.Do(request)
	if err != nil {
		return fmt.Errorf("apply %s: %w", path, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, answerLimit)) // for the message only
		return fmt.Errorf("apply %s: %s: %s", path, response.Status, text)
	}
	return nil
}

// importPause gives containerd the image that every pod needs.
func (n *nodeSide) importPause(ctx context.Context) error {
	var image bytes.Buffer
	if err := node.WritePauseImage(&image); err != nil {
		return fmt.Errorf("make the pause image: %w", err)
	}
	return ImportImage(ctx, n.node.PIDFile(), &image)
}

// close ends what up itself does for the node. The sweeper goes on until the
// kernel has let go of everything.
func (n *nodeSide) close() error {
	var failures []error
	if n.gateway != nil {
		failures = append(failures, n.gateway.close())
	}
	failures = append(failures, n.held.Close(), n.node.Forget())
	return errors.Join(failures...)
}

// nodeReady is nil when a component of the node can be used.
func (p *probes) nodeReady(ctx context.Context, c Component) error {
	switch c {
	case Scheduler:
		_, err := get(ctx, p.kube, p.ports.Scheduler, "/healthz")
		return err
	case Node:
		_, err := os.Stat(p.node.node.ReadyFile())
		return err
	case Containerd:
		connection, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "unix", p.node.node.Socket(p.node.pid))
		if err != nil {
			return err
		}
		return connection.Close()
	case Kubelet:
		return p.registered(ctx)
	case Proxy:
		return p.proxyReady(ctx)
	case DNS:
		return p.dnsReady(ctx)
	}
	return fmt.Errorf("unknown component %q", c)
}

// registered is nil when the API server knows the node as ready.
func (p *probes) registered(ctx context.Context) error {
	text, err := get(ctx, p.kube, p.ports.APIServer, "/api/v1/nodes/"+nodeName)
	if err != nil {
		return err
	}
	var found struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return fmt.Errorf("read node %s: %w", nodeName, err)
	}
	for _, c := range found.Status.Conditions {
		if c.Type == "Ready" && c.Status != "True" {
			return fmt.Errorf("node %s is not ready: %s", nodeName, c.Message)
		}
		if c.Type == "Ready" {
			return nil
		}
	}
	return fmt.Errorf("node %s does not say whether it is ready", nodeName)
}

// proxyHealthPort is kube-proxy's default.
const proxyHealthPort = "10256"

func (p *probes) proxyReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	address := net.JoinHostPort(p.node.node.Link.Node.Addr().String(), proxyHealthPort)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("kube-proxy is not healthy: %s", response.Status)
	}
	return nil
}

// dnsReady is nil when the cluster's DNS knows the API server.
func (p *probes) dnsReady(ctx context.Context) error {
	server := net.JoinHostPort(p.node.node.Link.Node.Addr().String(), "53")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
	_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err
}

const sweepPeriod = time.Minute

// RunSweeper waits until its up is gone, and removes what the kernel keeps of
// the node with that control group, and what the node has said of itself in its
// directory.
func RunSweeper(lost <-chan struct{}, args []string) error {
	if len(args) != 2 {
		return errors.New("the sweeper takes the name of a control group and a directory")
	}
	<-lost
	forgotten := node.Node{Dir: args[1]}.Forget()
	ctx, cancel := context.WithTimeout(context.Background(), sweepPeriod)
	defer cancel()
	return errors.Join(forgotten, node.Sweep(ctx, args[0]))
}
