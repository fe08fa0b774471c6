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
	"io"
	"io/fs"
	"os"
	"syscall"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
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
	text, err := ReadFile(path)
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

// longestFile is more than any kubeconfig, chain or bundle needs.
const longestFile = 1 << 20

// ReadFile reads a regular file whole: not a pipe, which it would wait for, nor
// a device or a file without end. Its errors are of fs.PathError.
func ReadFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is no regular file")}
	}
	text, err := io.ReadAll(io.LimitReader(file, longestFile+1))
	if err == nil && len(text) > longestFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is larger than %d bytes", longestFile)}
	}
	return text, err
}

// Client returns a client of the API server.
func Client(cfg *rest.Config) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return client, nil
}
