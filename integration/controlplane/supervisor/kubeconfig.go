package supervisor

import (
	"encoding/base64"
	"fmt"
	"os"
)

// serverName is a name in the API server's certificate, for who reaches it by an
// address that is not.
const serverName = "kubernetes"

// kubeconfigText takes the server's address, the user's name, the server's CA,
// the user's certificate and key, and the server's name. It can be copied
// anywhere: what it needs is in it.
const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- name: controlplane
  cluster:
    server: https://%[1]s
    tls-server-name: %[6]s
    certificate-authority-data: %[3]s
users:
- name: %[2]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: controlplane
  context:
    cluster: controlplane
    user: %[2]s
current-context: controlplane
`

// writeKubeconfig writes the access of one of the cluster's client certificates.
func writeKubeconfig(l layout, server, user, path string) error {
	var encoded [3]string
	for i, file := range []string{l.certificate(caName), l.certificate(user), l.key(user)} {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", user, err)
		}
		encoded[i] = base64.StdEncoding.EncodeToString(data)
	}
	text := fmt.Sprintf(kubeconfigText, server, user, encoded[0], encoded[1], encoded[2], serverName)
	return replaceFile(path, []byte(text))
}
