package supervisor

import "fmt"

// The cluster's service addresses, and the first of them, which is the API
// server's own. No packet is ever sent to them without a node.
const (
	serviceCIDR        = "10.96.0.0/16"
	apiServerServiceIP = "10.96.0.1"
)

// issuer is what service account tokens say of where they are from.
const issuer = "https://kubernetes.default.svc.cluster.local"

// featureGates opens what is off by default but part of what workload
// certificates meet in a cluster. Both components must agree on them.
const featureGates = "ClusterTrustBundle=true,PodCertificateRequest=true"

// etcdArgs runs one member that talks to holders of a certificate of its own CA
// only. It leaves out fsync, which most of a test's time would go to: the data
// outlive the process, but not the machine's power.
func etcdArgs(l layout, p ports) []string {
	client, peer := "https://"+loopback(p.Etcd), "https://"+loopback(p.EtcdPeer)
	return []string{
		"--name=controlplane",
		"--data-dir=" + l.etcdData(),
		"--unsafe-no-fsync",
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--cert-file=" + l.certificate(etcdName),
		"--key-file=" + l.key(etcdName),
		"--trusted-ca-file=" + l.certificate(etcdCAName),
		"--client-cert-auth",
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=controlplane=" + peer,
		"--peer-cert-file=" + l.certificate(etcdName),
		"--peer-key-file=" + l.key(etcdName),
		"--peer-trusted-ca-file=" + l.certificate(etcdCAName),
		"--peer-client-cert-auth",
		"--socket-reuse-port",     // up holds the ports
		"--heartbeat-interval=50", // ms; there is no network to wait for,
		"--election-timeout=250",  // and nobody else to elect
		"--log-level=warn",
	}
}

// apiServerArgs runs the API server as a real cluster has it. Only the endpoints
// of the service "kubernetes" stay unset: Kubernetes allows none on loopback.
func apiServerArgs(l layout, p ports, audit bool) []string {
	args := []string{
		"--etcd-servers=https://" + loopback(p.Etcd),
		"--etcd-cafile=" + l.certificate(etcdCAName),
		"--etcd-certfile=" + l.certificate(etcdClientName),
		"--etcd-keyfile=" + l.key(etcdClientName),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		fmt.Sprintf("--secure-port=%d", p.APIServer),
		"--permit-port-sharing", // up holds the ports
		"--tls-cert-file=" + l.certificate(apiServerName),
		"--tls-private-key-file=" + l.key(apiServerName),
		"--client-ca-file=" + l.certificate(caName),
		"--requestheader-client-ca-file=" + l.certificate(proxyCAName),
		"--requestheader-allowed-names=" + proxyUser,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + l.certificate(proxyClientName),
		"--proxy-client-key-file=" + l.key(proxyClientName),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--admission-control-config-file=" + l.admission(),
		"--service-account-issuer=" + issuer,
		"--service-account-signing-key-file=" + l.key(serviceAccountName),
		"--service-account-key-file=" + l.publicKey(serviceAccountName),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--runtime-config=certificates.k8s.io/v1beta1=true",
		"--feature-gates=" + featureGates,
		"--allow-privileged=true",
		"--kubelet-client-certificate=" + l.certificate(kubeletClientName),
		"--kubelet-client-key=" + l.key(kubeletClientName),
		"--kubelet-preferred-address-types=InternalIP",
		"--shutdown-watch-termination-grace-period=5s", // else it waits for watches, which do not end
		"--profiling=false",
	}
	if audit {
		args = append(args, auditArgs(l)...)
	}
	return args
}

// auditArgs writes each event before its request is answered, or fails the
// request, so that who counts events counts requests.
func auditArgs(l layout) []string {
	return []string{
		"--audit-policy-file=" + l.auditPolicy(),
		"--audit-log-path=" + l.auditLog(),
		"--audit-log-mode=blocking-strict",
		"--audit-log-format=json",
		"--audit-log-maxsize=1000000", // MB: one file, never rotated
	}
}

// controllerManagerArgs runs all default controllers, each as its own service
// account, and signs certificate requests with the cluster's CA.
func controllerManagerArgs(l layout, p ports) []string {
	return append(clientArgs(l, l.managerKubeconfig(), p.ControllerManager),
		"--root-ca-file="+l.certificate(caName),
		"--service-account-private-key-file="+l.key(serviceAccountName),
		"--use-service-account-credentials",
		"--flex-volume-plugin-dir="+l.path("flexvolume"), // made when missing, elsewhere by default
		"--cluster-signing-cert-file="+l.certificate(caName),
		"--cluster-signing-key-file="+l.key(caName))
}

// schedulerArgs runs the scheduler, which only clusters with a node have.
func schedulerArgs(l layout, p ports) []string {
	return clientArgs(l, l.schedulerKubeconfig(), p.Scheduler)
}

// clientArgs are those of a component that works through the API server alone.
func clientArgs(l layout, kubeconfig string, port int) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing", // up holds the ports
		"--tls-cert-file=" + l.certificate(managerServerName),
		"--tls-private-key-file=" + l.key(managerServerName),
		"--client-ca-file=" + l.certificate(caName),
		"--leader-elect=false", // there is no other
		"--kube-api-qps=200",   // the default of 20 is most of the start-up time
		"--kube-api-burst=400",
		"--feature-gates=" + featureGates,
		"--profiling=false",
	}
}
