// Package kube connects the authority to Kubernetes: the Secrets that hold a
// signing certificate, the lease that says which replica writes, and the objects
// that decide about mTLS.
//
// It carries and does not decide: what a Secret must hold is ca/trust's, what
// may be signed is ca's. It refuses to log and to make a second root.
package kube

import (
	"errors"
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"citadel/ca/regular"
)

// Config returns how to reach the API server: by a kubeconfig file, or, when
// its name is empty, as a pod of the cluster. Objects travel as protobuf,
// uncompressed (processors are dearer than a cluster's own network), and no
// client-side rate limit stands before the API server's own priority and
// fairness (K-3).
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if kubeconfig == "" {
		if cfg, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("reach the API server as a pod: %w: outside a cluster, give --kube-config", err)
		}
	} else if cfg, err = readKubeconfig(kubeconfig); err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = userAgent
	cfg.QPS = -1
	cfg.DisableCompression = true
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return cfg, nil
}

// readKubeconfig takes the file and nothing else: an empty one does not stand
// for the pod's own rights. Its errors do not name the file.
func readKubeconfig(path string) (*rest.Config, error) {
	text, err := regular.Read(path)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, e.Err
	}
	if err != nil {
		return nil, err
	}
	file, err := clientcmd.Load(text)
	if err != nil {
		return nil, err
	}
	for _, cluster := range file.Clusters {
		cluster.LocationOfOrigin = path // paths in it are relative to it
	}
	for _, user := range file.AuthInfos {
		user.LocationOfOrigin = path
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, err
	}
	return clientcmd.NewDefaultClientConfig(*file, nil).ClientConfig()
}

// Client returns a client of the API server.
func Client(cfg *rest.Config) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return client, nil
}
