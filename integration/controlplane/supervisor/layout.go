package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
)

// layout names the files of a cluster.
type layout struct{ dir string } // absolute

// newLayout takes the directory of a cluster as a person types it.
func newLayout(dir string) (layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, fmt.Errorf("find the directory %s: %w", dir, err)
	}
	return layout{abs}, nil
}

func (l layout) path(name string) string     { return filepath.Join(l.dir, name) }
func (l layout) lock() string                { return l.path("lock") }
func (l layout) ports() string               { return l.path("ports.json") }
func (l layout) etcdData() string            { return l.path("etcd") }
func (l layout) pki() string                 { return l.path("pki") }
func (l layout) certificate(n string) string { return filepath.Join(l.pki(), n+".crt") }
func (l layout) key(n string) string         { return filepath.Join(l.pki(), n+".key") }
func (l layout) publicKey(n string) string   { return filepath.Join(l.pki(), n+".pub") }
func (l layout) kubeconfig() string          { return l.path("kubeconfig") }
func (l layout) managerKubeconfig() string   { return l.path("controller-manager.kubeconfig") }
func (l layout) schedulerKubeconfig() string { return l.path("scheduler.kubeconfig") }
func (l layout) nodeDir() string             { return l.path("node") }
func (l layout) kubeletKubeconfig() string   { return l.path("kubelet.kubeconfig") }
func (l layout) proxyKubeconfig() string     { return l.path("kube-proxy.kubeconfig") }
func (l layout) admission() string           { return l.path("admission.yaml") }
func (l layout) auditPolicy() string         { return l.path("audit-policy.yaml") }
func (l layout) auditLog() string            { return l.path("audit.log") }
func (l layout) logs() string                { return l.path("logs") }

func (l layout) log(c Component) string {
	return filepath.Join(l.logs(), string(c)+".log")
}

// replaceFile puts a file in place as a whole or not at all, for the owner only.
func replaceFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temporary.Name()) // of no effect once it is renamed
	_, err = temporary.Write(data)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
