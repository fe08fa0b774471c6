// Package supervisor runs the components of a Kubernetes control plane, and of a
// node if it is asked to, as children of one process, and talks to that process to
// stop and start them.
//
// It knows the components' flags, keys, ports and how to see that they are ready.
// It does not link them: a child is the running binary again, with the name of
// the component as its first argument, so main decides what that means. It
// refuses to restart what dies by itself, to serve anything but loopback and its node, and to
// run a directory twice. It is for Linux.
package supervisor

import (
	"fmt"
	"slices"
	"strings"
)

// Component names a process of the control plane, and the command that runs it.
type Component string

// The components, which start in this order and stop in the reverse.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	ControllerManager Component = "kube-controller-manager"
	Scheduler         Component = "kube-scheduler"
	Node              Component = "node" // the namespaces that the rest run in
	Containerd        Component = "containerd"
	Kubelet           Component = "kubelet"
	Proxy             Component = "kube-proxy"
	DNS               Component = "cluster-dns"
)

// startOrder is all of them; a cluster without a node has the first three.
var startOrder = []Component{Etcd, APIServer, ControllerManager, Scheduler, Node, Containerd, Kubelet, Proxy, DNS}

// UnmarshalText is ParseComponent for decoders.
func (c *Component) UnmarshalText(text []byte) (err error) {
	*c, err = ParseComponent(string(text))
	return err
}

// ParseComponent accepts the name of a component.
func ParseComponent(name string) (Component, error) {
	if c := Component(name); slices.Contains(startOrder, c) {
		return c, nil
	}
	known := make([]string, len(startOrder))
	for i, c := range startOrder {
		known[i] = string(c)
	}
	return "", fmt.Errorf("unknown component %q: it is one of %s", name, strings.Join(known, ", "))
}
