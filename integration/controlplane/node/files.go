package node

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFiles writes the configuration of the node's programs; the kubeconfig is
// kube-proxy's, the CA that of the cluster's clients.
func (n Node) WriteFiles(proxyKubeconfig, clientCA string) error {
	files := map[string]string{
		n.containerdConfig():                            fmt.Sprintf(containerdText, n.path("containerd"), socket, PauseImage, plugins, n.networks()),
		filepath.Join(n.networks(), "10-pods.conflist"): fmt.Sprintf(networkText, n.Link.Pods),
		n.kubeletConfig(): fmt.Sprintf(kubeletText, clientCA, n.Cgroup(), socket, n.DNS, clusterDomain,
			n.path("pod-logs"), n.path("volume-plugins")),
		n.proxyConfig(): fmt.Sprintf(proxyText, proxyKubeconfig, n.Name, n.Link.Pods),
	}
	if err := os.MkdirAll(n.networks(), 0o700); err != nil {
		return fmt.Errorf("make the directory of the node: %w", err)
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure the node: %w", err)
		}
	}
	return nil
}

// containerdText takes the directory for images and containers, the socket, the
// pause image, and the directories of network plugins and networks. State is
// below /run, which is the node's own, and gone with it, as after a reboot.
const containerdText = `version = 2
root = %[1]q
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
[grpc]
  address = %[2]q
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[3]q
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[4]q
    conf_dir = %[5]q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

// networkText takes the addresses of pods. Each pod is routed by itself: on a
// bridge, answers from behind a service would go past the node.
const networkText = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "dataDir": "/run/cni/networks", "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

// kubeletText takes the clients' CA, the control group, containerd's socket, the
// DNS server and domain, and the directories of logs and volume plugins. The
// node shares the machine: nothing is evicted that the machine has room for. A
// changed Secret reaches pods within syncFrequency.
const kubeletText = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[1]q}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /%[2]s
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://%[3]s
clusterDNS: [%[4]q]
clusterDomain: %[5]s
podLogsDir: %[6]q
volumePluginDir: %[7]q
readOnlyPort: 0
evictionHard: {memory.available: 50Mi, nodefs.available: 100Mi, imagefs.available: 100Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 200
kubeAPIQPS: 200
kubeAPIBurst: 400
eventRecordQPS: 100
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
`

// proxyText takes the kubeconfig, the node's name, and the addresses of pods.
const proxyText = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %[1]q}
hostnameOverride: %[2]q
clusterCIDR: %[3]q
bindAddress: 0.0.0.0
conntrack: {maxPerCore: 0, min: 0}
nftables: {syncPeriod: 10s, minSyncPeriod: 100ms}
`
