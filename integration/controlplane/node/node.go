// Package node makes a Kubernetes node out of namespaces of this machine: its
// own mounts, processes, network and host name, in which Debian's containerd and
// runc run real pods beside kubelet and kube-proxy.
//
// A process that holds the namespaces together is the first in them: when it
// ends, the kernel ends all others, and mounts, interfaces and nftables rules go
// with the namespaces. What the kernel keeps, control groups, Sweep removes. The
// package knows files, addresses and namespaces; it starts none of Kubernetes'
// programs, and it refuses to touch the machine's own network but for one
// interface.
package node

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// Node is one node of a cluster on this machine.
type Node struct {
	Name string // also its host name
	Dir  string // state that outlives the node's processes
	Link Link
	DNS  netip.Addr // the cluster's DNS server
}

// Cluster DNS names end so.
const clusterDomain = "cluster.local"

// New is the node of a cluster whose state is in dir.
func New(name, dir string, link Link) Node {
	return Node{
		Name: name, Dir: dir, Link: link,
		DNS: netip.MustParseAddr("10.96.0.10"),
	}
}

func (n Node) path(name string) string { return filepath.Join(n.Dir, name) }

// The files that the node's programs are told to read.
func (n Node) containerdConfig() string { return n.path("containerd.toml") }
func (n Node) kubeletConfig() string    { return n.path("kubelet.yaml") }
func (n Node) proxyConfig() string      { return n.path("kube-proxy.yaml") }
func (n Node) networks() string         { return n.path("cni") }

// PIDFile holds the process ID of the first process of the node, as the machine
// counts, while the node runs.
func (n Node) PIDFile() string { return n.path("pid") }

// ReadyFile exists once the namespaces can be entered.
func (n Node) ReadyFile() string { return n.path("ready") }

// Forget removes what a former run has said of itself: its processes are gone, and
// others may have their numbers.
func (n Node) Forget() error {
	for _, name := range []string{n.PIDFile(), n.ReadyFile()} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the former node: %w", err)
		}
	}
	return nil
}

// Cgroup is the name of the node's group below the root of every hierarchy.
func (n Node) Cgroup() string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(n.Dir)) // a hash never fails to write
	return fmt.Sprintf("controlplane-%016x", h.Sum64())
}

// Packages are the Debian packages whose programs a node needs.
var Packages = []string{"containerd", "runc", "containernetworking-plugins", "nftables", "iproute2"}

// programs are what of them must be there.
var programs = []string{"containerd", "ctr", "runc", "nft", "ip", "mount"}

// plugins is where Debian has the network plugins.
const plugins = "/usr/lib/cni"

// socket is containerd's, inside the node.
const socket = "/run/containerd/containerd.sock"

// ContainerdArgs are containerd's.
func (n Node) ContainerdArgs() []string { return []string{"--config", n.containerdConfig()} }

// KubeletArgs are kubelet's.
func (n Node) KubeletArgs(kubeconfig string) []string {
	return []string{
		"--config=" + n.kubeletConfig(),
		"--kubeconfig=" + kubeconfig,
		"--hostname-override=" + n.Name,
		"--node-ip=" + n.Link.Node.Addr().String(),
		"--root-dir=" + n.path("kubelet"),
		"--cert-dir=" + n.path("kubelet-pki"),
	}
}

// ProxyArgs are kube-proxy's.
func (n Node) ProxyArgs() []string { return []string{"--config=" + n.proxyConfig()} }

// DNSArgs are the cluster's DNS's, which reads services as kube-proxy does.
func (n Node) DNSArgs(kubeconfig string) []string {
	return []string{kubeconfig, n.Link.Node.Addr().String() + ":53", clusterDomain}
}

// ImportArgs make ctr take images from its standard input.
func ImportArgs() []string {
	return []string{"ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", "-"}
}

// Socket is the path of containerd's socket outside the node whose first
// process this is.
func (n Node) Socket(pid int) string { return fmt.Sprintf("/proc/%d/root%s", pid, socket) }
